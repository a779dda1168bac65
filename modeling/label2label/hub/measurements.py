"""What is known of one model: its config, and the results that were measured on its weights.

Results of the default model lie in results/ itself, those of another that ships in a folder of its
name. The others go on from the default one, so that its training is a part of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from label2label.errors import UserError
from label2label.files import sha256

_DATASETS = {"celeba": "CelebA subset", "utkface": "UTKFace subset"}


@dataclass(frozen=True)
class CardSection:
    """A part of the model card.

    Args:
        text: its Markdown.
        figures: those of its figures that the card's metadata (`model-index`) publishes too.
    """

    text: str
    figures: Sequence[EvalResult] = field(default_factory=tuple)


class Measurements:
    """A model's config and the JSON files under results/ that are of its weights.

    Args:
        model: its folder.
        results: folder of JSON files; those in a folder of the model's name in it come first.

    Raises:
        UserError: the config, the weights or a result cannot be read.
    """

    def __init__(self, model: Path, results: Path) -> None:
        self.name = model.resolve().name
        self.config = read_json(model / "config.json")
        self.attributes = attribute_names(self.config)
        self.weights_sha256 = digest(model / "model.safetensors")
        own = results / self.name
        paths = [path for folder in (results, own) for path in sorted(folder.glob("*.json"))]
        self._results = {path.stem: read_json(path) for path in paths}

    def get(self, name: str) -> Any:
        """One result.

        Args:
            name: of its file, without the suffix.

        Returns:
            What `results/NAME.json` holds; None where it is not there, or of other weights.
        """
        result = self._results.get(name)
        return result if result is None or self._is_ours(result) else None

    @cached_property
    def test(self) -> dict[str, Any]:
        """The evaluation on CelebA's test split, which every card needs.

        Raises:
            UserError: it is not there, or of other attributes or weights.
        """
        if "celeba_test" not in self._results:
            raise UserError(
                "celeba_test.json cannot be read: `label2label evaluate --output` writes it"
            )
        result = self._results["celeba_test"]
        if sorted(result["per_attribute"]) != sorted(self.attributes):
            raise UserError(f"celeba_test.json is not of {self.name}: its attributes are others")
        if not self._is_ours(result):
            raise UserError(
                f"celeba_test.json is not of {self.name}'s weights: evaluate them again"
            )
        return result

    @cached_property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Every evaluation of these weights (`label2label evaluate`), by its file's name."""
        return {
            name: result
            for name, result in self._results.items()
            if isinstance(result, dict) and "per_attribute" in result and self._is_ours(result)
        }

    @cached_property
    def mitigation(self) -> dict[str, Any] | None:
        """`fairness_mitigation.json`, where its chosen recipe made these weights; else None."""
        table = self._results.get("fairness_mitigation")
        chosen = table["after"].get(table["chosen"]) if table else None
        return table if chosen and chosen["weights_sha256"] == self.weights_sha256 else None

    @cached_property
    def training_logs(self) -> dict[str, list[dict[str, Any]]]:
        """The epochs of every round of training, by recipe: `training_RECIPE.json`."""
        prefix = "training_"
        return {
            name.removeprefix(prefix).replace("_", "-"): log
            for name, log in self._results.items()
            if name.startswith(prefix)
        }

    def _is_ours(self, result: Any) -> bool:
        """Whether a result is of these weights; one that does not name any counts."""
        model = result.get("model") if isinstance(result, dict) else None
        sha256 = model.get("weights_sha256") if isinstance(model, dict) else None
        return sha256 in (None, self.weights_sha256)


def attribute_names(config: Mapping[str, Any]) -> list[str]:
    """A model's attributes in the order of its logits, whatever the order in its config's file.

    Args:
        config: what its `config.json` holds.

    Returns:
        Their names; none where the config names none.
    """
    names = config.get("id2label", {})
    return [names[index] for index in sorted(names, key=int)]


def dataset_title(evaluation: Mapping[str, Any]) -> str:
    """A dataset's name as people read it."""
    name = evaluation["dataset"]["name"]
    return _DATASETS.get(name, name)


def figure(
    evaluation: Mapping[str, Any],
    metric: str,
    title: str,
    value: float,
    ends: Sequence[float | None] | None = None,
) -> EvalResult:
    """A figure of an evaluation as the card's metadata holds it.

    Args:
        evaluation: as `label2label evaluate` wrote it.
        metric: identifier, such as `accuracy`.
        title: what it is called on the model's page.
        value: the figure.
        ends: of its 95 % interval, where there is one.

    Returns:
        The entry of `model-index`.
    """
    known = ends is not None and None not in ends
    return EvalResult(
        task_type="image-classification",
        task_name="Facial attributes",
        dataset_type=evaluation["dataset"]["name"],
        dataset_name=f"{dataset_title(evaluation)} ({evaluation['num_images']:,} images)",
        dataset_split=evaluation["dataset"]["split"],
        metric_type=metric,
        metric_name=title,
        metric_value=value,
        metric_args={"interval_95": list(ends or [])} if known else None,
    )


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is not there, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
