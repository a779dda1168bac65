"""Predict facial attributes as a sentence, by a model light enough for a phone."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__version__ = "0.2.0.dev0"

_MODULES = {
    "AttributePredictor": "label2label.prediction.predictor",
    "Label2LabelConfig": "label2label.models",
    "Label2LabelForImageClassification": "label2label.models",
    "Label2LabelImageProcessor": "label2label.models",
    "Label2LabelModel": "label2label.models",
    "MobileFaceNetBackbone": "label2label.models",
    "MobileFaceNetConfig": "label2label.models",
    "MobileFaceNetModel": "label2label.models",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_AUTO_CLASSES = "transformers.models.auto"


class _RegisterModels(importlib.abc.MetaPathFinder):
    """Register the models with transformers' Auto classes once a program has imported those.

    After `import label2label`, the Auto classes know the models. A program that does not use
    transformers does not wait for its import or that of torch.
    """

    importing = False  # during circular imports of transformers: register after the outermost

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.importing or name.partition(".")[0] != "transformers":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self.importing = True
            try:
                execute(module)
            finally:
                self.importing = False
            if _AUTO_CLASSES in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register_models()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_models() -> None:
    with contextlib.suppress(ImportError):  # transformers without torch: no model can be loaded
        importlib.import_module("label2label.models._auto")


if _AUTO_CLASSES in sys.modules:
    _register_models()
else:
    sys.meta_path.insert(0, _RegisterModels())
