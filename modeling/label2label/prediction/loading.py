"""Load a model and its image processor, refusing a folder whose parts do not belong together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError, join_lines
from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor


def load_model(
    name: str | os.PathLike[str],
) -> tuple[Label2LabelForImageClassification, Label2LabelImageProcessor]:
    """Load a model and its image processor.

    transformers only warns of weights that are missing and draws random ones: here they are an
    error.

    Args:
        name: a folder, a Hub id, or the name of a model that ships with the package.

    Returns:
        The model, in float32 and evaluation mode, and its processor.

    Raises:
        UserError: a file is missing or damaged, the weights do not match the config, or it is
            another kind of model.
    """
    name = find_checkpoint(name)
    if not Path(name).is_dir():
        if Path(name).exists():
            raise UserError(f"{name} is a file: --model takes a model's folder or a Hub id")
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise UserError(f"{name} does not exist: --model takes a model's folder or a Hub id")
    else:
        for file in ("config.json", "preprocessor_config.json"):
            if not (Path(name) / file).is_file():
                raise UserError(f"{name} has no {file}: it is no whole model folder")
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
        if config.get("model_type") != "label2label":
            raise UserError(
                f"{name} holds a model of type {config.get('model_type')!r}, not 'label2label'"
            )
        processor = Label2LabelImageProcessor.from_pretrained(name)
        loaded: Any = Label2LabelForImageClassification.from_pretrained(
            name, output_loading_info=True, dtype=torch.float32
        )
    except UserError:
        raise
    except Exception as error:  # config, weights and Hub each raise errors of their own kinds
        raise UserError(f"cannot load the model {name}: {join_lines(error)}") from error
    model, info = loaded
    for problem, title in (
        ("missing_keys", "lack"),
        ("unexpected_keys", "have, beyond the config,"),
    ):
        if info[problem]:
            keys = sorted(info[problem])
            raise UserError(
                f"{name}: its weights do not match its config.json: they {title} {keys[0]}"
                + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            )
    return model.eval(), processor
