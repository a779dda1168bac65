"""label2label: facial attributes as a sentence, in a model light enough for a phone."""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

_MODELS = (
    "Label2LabelConfig",
    "Label2LabelForImageClassification",
    "Label2LabelImageProcessor",
    "Label2LabelModel",
    "MobileFaceNetBackbone",
    "MobileFaceNetConfig",
    "MobileFaceNetModel",
)

__all__ = [*_MODELS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODELS:
        return getattr(importlib.import_module("label2label.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# After `import label2label`, transformers' Auto classes know the models. The command answers
# `--help` without waiting for torch: it imports the models when it needs them. (While Python looks
# for what `-m` names, argv[0] is "-m".) The dataset programs need none, nor do their workers, each
# of which torch would cost 350 MB.
_folder, _program = os.path.split(os.path.abspath(sys.argv[0]))
if (
    os.path.splitext(_program)[0] not in ("label2label", "-m")
    and os.path.basename(_folder) != "datasets_scripts"
):
    importlib.import_module("label2label.models")
