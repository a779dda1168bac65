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


def _is_own_program() -> bool:
    """Whether this process runs the command, a module of the package or a dataset program."""
    folder, program = os.path.split(os.path.abspath(sys.argv[0]))
    if program == "-m":  # Python is looking for the module, which `-m` names before its arguments
        module = sys.orig_argv[-len(sys.argv)]
        module = module.partition("m")[2] if module.startswith("-") else module  # "-mlabel2label"
        return module.partition(".")[0] == "label2label"
    return (
        os.path.splitext(program)[0] == "label2label"
        or os.path.basename(folder) == "datasets_scripts"
    )


# After `import label2label`, transformers' Auto classes know the models. The command answers
# `--help` without waiting for torch: it imports the models when it needs them. The dataset programs
# need none, nor do their workers, each of which torch would cost 350 MB.
if not _is_own_program():
    importlib.import_module("label2label.models")
