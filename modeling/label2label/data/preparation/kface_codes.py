"""What the codes in K-FACE's paths mean, and which images they keep: a table a user can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from label2label.data.preparation.text import open_text
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError

Labels = Mapping[str, bool | None]


@dataclass(frozen=True)
class Codes:
    """What the codes of a path mean, and which are kept.

    Args:
        cameras: Cameras that are kept; C7 is the frontal one, C6 and C8 are next to it.
        lights: Lights that are kept. L1 is the brightest, all lamps on at 1000 lux; the next ones
            are dimmer, later ones come from one side.
        accessories: Labels that each accessory tells.
        expressions: Labels that each expression tells: neutral, smile, frown.
    """

    cameras: tuple[str, ...] = ("C7",)
    lights: tuple[str, ...] = ("L1", "L2", "L3")
    accessories: Mapping[str, Labels] = field(
        default_factory=lambda: {
            "S001": {"Eyeglasses": False, "Wearing_Hat": False},
            "S002": {"Eyeglasses": True, "Wearing_Hat": False},
            "S003": {"Eyeglasses": True, "Wearing_Hat": False},
            "S004": {"Eyeglasses": True, "Wearing_Hat": False},
            "S005": {"Eyeglasses": False, "Wearing_Hat": True},
            "S006": {"Eyeglasses": True, "Wearing_Hat": True},
        }
    )
    expressions: Mapping[str, Labels] = field(
        default_factory=lambda: {
            "E01": {"Smiling": False},
            "E02": {"Smiling": True},
            "E03": {"Smiling": False},
        }
    )


def read_codes(path: Path | None) -> Codes:
    """Read the user's changes to the code table.

    Args:
        path: A YAML file with some of the fields of `Codes`, or None.

    Returns:
        The table; accessories and expressions that the file does not name stay as they are.

    Raises:
        UserError: If the file is not such a mapping or names an attribute that does not exist.
    """
    if path is None:
        return Codes()
    table: dict[str, Any] = asdict(Codes())
    try:
        with open_text(path) as file:
            changes = yaml.safe_load(file) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(changes, dict) or not set(changes) <= set(Codes.__dataclass_fields__):
        raise UserError(f"{path}: the keys must be among {', '.join(Codes.__dataclass_fields__)}")
    for key in ("cameras", "lights"):
        if key in changes:
            if not isinstance(changes[key], list):
                raise UserError(f"{path}: {key} must be a list of codes")
            table[key] = tuple(map(str, changes[key]))
    for key in ("accessories", "expressions"):
        changed = changes.get(key) or {}
        if not isinstance(changed, dict):
            raise UserError(f"{path}: {key} must be a mapping of codes to labels")
        for code, labels in changed.items():
            check_labels(labels, f"{path}: {key}, {code}")
            table[key][code] = labels
    return Codes(**table)


def check_labels(labels: Any, where: str) -> None:
    """Check labels that a user wrote.

    Args:
        labels: What should be a mapping of attributes to true, false or null.
        where: Where they were written, for the error message.

    Raises:
        UserError: If they are something else.
    """
    attributes = get_vocabulary("korean-11").attributes
    if not isinstance(labels, dict) or not set(labels) <= set(attributes):
        raise UserError(f"{where}: expected attributes among {', '.join(attributes)}")
    if not all(value is None or isinstance(value, bool) for value in labels.values()):
        raise UserError(f"{where}: the values must be true, false or null")
