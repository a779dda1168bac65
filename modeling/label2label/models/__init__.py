"""The models, whose code travels with their weights to the Hub.

The first class that is used imports and registers all of them; `exclusive_answers` needs numpy
alone.
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
