"""
What a Hub model repository carries.

The classes are imported, and registered with transformers' Auto classes, when the first of them is
used: `exclusive_answers` needs numpy alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._auto import (
        Label2LabelConfig,
        Label2LabelForImageClassification,
        Label2LabelImageProcessor,
        Label2LabelModel,
        MobileFaceNetBackbone,
        MobileFaceNetConfig,
        MobileFaceNetModel,
    )

__all__ = [
    "Label2LabelConfig",
    "Label2LabelForImageClassification",
    "Label2LabelImageProcessor",
    "Label2LabelModel",
    "MobileFaceNetBackbone",
    "MobileFaceNetConfig",
    "MobileFaceNetModel",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("._auto", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
