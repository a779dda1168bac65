"""Parameters and FLOPs of a model, by part, compared with the original Label2label.

`python benchmarks/complexity.py --output results/model_size.json` measures the default model.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from common import command_line, finish, write_json
from label2label.checkpoints import find_checkpoint
from label2label.models import Label2LabelConfig, Label2LabelForImageClassification
from label2label.prediction.backends import load_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig


def measure_complexity(config: Label2LabelConfig, image_size: int) -> dict[str, Any]:
    """Count a model's parameters and FLOPs from its config alone.

    Returns:
        `image_size`, and `parameters` and `flops` (2 x multiply-add, of convolutions and matrix
        products), each of `backbone`, `head` and `all`.
    """
    with torch.device("meta"):
        model = Label2LabelForImageClassification._from_config(config, attn_implementation="eager")
        image = torch.empty(1, 3, image_size, image_size)
    backbone = model.eval().requires_grad_(False).label2label.backbone
    return {
        "image_size": image_size,
        "parameters": _parts(count_parameters(backbone), count_parameters(model)),
        "flops": _parts(count_flops(backbone, image), count_flops(model, image)),
    }


def original_label2label() -> Label2LabelConfig:
    """Return the config of Label2label as released (ECCV 2022), for 40 attributes.

    It has a ResNet-50 and a hidden size of 2048, and takes images of 250x250 pixels.
    """
    return Label2LabelConfig(
        backbone_config=ResNetConfig(out_features=["stage4"]),
        hidden_size=2048,
        intermediate_size=2048,
        num_attention_heads=4,
        num_query_layers=1,
        num_mlm_layers=2,
        num_labels=40,
    )


def _parts(backbone: int, everything: int) -> dict[str, int]:
    return {"backbone": backbone, "head": everything - backbone, "all": everything}


def count_parameters(module: torch.nn.Module) -> int:
    """Count a module's parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(module: torch.nn.Module, image: torch.Tensor) -> int:
    """Count the FLOPs of one call: 2 per multiply-add in convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops()


def measure() -> None:
    """Measure a model and the original, and write both as JSON."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--model", metavar="MODEL", help="folder or name (default: the default model)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    model = find_checkpoint(args.model)
    loaded, processor = load_model(model)
    sizes = {
        "model": {
            "name": Path(model).resolve().name,
            **measure_complexity(loaded.config, processor.crop_size["height"]),
            "file_bytes": (Path(model) / "model.safetensors").stat().st_size,
        },
        "original_label2label": measure_complexity(original_label2label(), image_size=250),
    }
    write_json(args.output, sizes)


if __name__ == "__main__":
    sys.exit(finish(measure))
