"""Attribute names of datasets and models, and conversion between vocabularies.

This module imports neither torch nor datasets, so that every part of the package can read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from label2label.errors import UserError

IGNORE_INDEX = -100
"""Label of an unknown attribute; every loss and metric ignores it."""

CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)

KOREAN_ATTRIBUTES = (
    "Eyeglasses",
    "Wearing_Hat",
    "Blurry",
    "Smiling",
    "Wearing_Mask",
    "Young",
    "Beard",
    "Blond_Hair",
    "Brown_Hair",
    "Black_Hair",
    "Gray_Hair",
)

ATTRIBUTE_GROUPS: dict[str, tuple[str, ...]] = {
    "hair": (
        "Bald",
        "Bangs",
        "Black_Hair",
        "Blond_Hair",
        "Brown_Hair",
        "Gray_Hair",
        "Receding_Hairline",
        "Straight_Hair",
        "Wavy_Hair",
    ),
    "facial hair": (
        "5_o_Clock_Shadow",
        "Beard",
        "Goatee",
        "Mustache",
        "No_Beard",
        "Sideburns",
    ),
    "accessories": (
        "Eyeglasses",
        "Wearing_Earrings",
        "Wearing_Hat",
        "Wearing_Mask",
        "Wearing_Necklace",
        "Wearing_Necktie",
    ),
    "make-up": ("Heavy_Makeup", "Rosy_Cheeks", "Wearing_Lipstick"),
    "expression": ("High_Cheekbones", "Mouth_Slightly_Open", "Smiling"),
    "eyes and brows": (
        "Arched_Eyebrows",
        "Bags_Under_Eyes",
        "Bushy_Eyebrows",
        "Narrow_Eyes",
    ),
    "face shape": (
        "Big_Lips",
        "Big_Nose",
        "Chubby",
        "Double_Chin",
        "Oval_Face",
        "Pointy_Nose",
    ),
    "person": ("Attractive", "Male", "Pale_Skin", "Young"),
    "image": ("Blurry",),
}
"""Attributes shown together, by group; every vocabulary's names are in exactly one group."""


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of attribute names: the words of an image's "sentence".

    Args:
        name: Short name, as used in recipes and on command lines.
        attributes: Attribute names, in the order of the model's outputs.
        opposites: Negations of attributes in other vocabularies: `{"Beard": "No_Beard"}` means
            `Beard = not No_Beard`.
    """

    name: str
    attributes: tuple[str, ...]
    opposites: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.attributes)


_BEARD = {"Beard": "No_Beard", "No_Beard": "Beard"}

VOCABULARIES: dict[str, Vocabulary] = {
    vocabulary.name: vocabulary
    for vocabulary in (
        Vocabulary("celeba-40", CELEBA_ATTRIBUTES, _BEARD),
        Vocabulary("celeba-41", (*CELEBA_ATTRIBUTES, "Wearing_Mask"), _BEARD),
        Vocabulary("korean-11", KOREAN_ATTRIBUTES, _BEARD),
        Vocabulary("union", (*CELEBA_ATTRIBUTES, "Wearing_Mask", "Beard"), _BEARD),
    )
}
"""Every vocabulary by name: CelebA's 40 attributes, these and `Wearing_Mask`, the 11 of the Korean
set, and the union of all."""


def get_vocabulary(name: str) -> Vocabulary:
    """Look a vocabulary up by its key in `VOCABULARIES`; raise UserError if there is none."""
    if name not in VOCABULARIES:
        raise UserError(f"unknown vocabulary {name!r}: choose one of {', '.join(VOCABULARIES)}")
    return VOCABULARIES[name]


def derive_row(row: Mapping[str, bool | None], vocabulary: Vocabulary) -> dict[str, bool | None]:
    """Express one row's attributes, None if unknown, in another vocabulary.

    Each value is the row's own, or derived from the negation, or None. Other columns are ignored.
    """
    derived: dict[str, bool | None] = {}
    for attribute in vocabulary.attributes:
        value = row.get(attribute)
        if value is None:
            opposite = row.get(vocabulary.opposites.get(attribute, ""))
            value = None if opposite is None else not opposite
        derived[attribute] = value
    return derived


def derive_labels(
    labels: np.ndarray, attributes: Sequence[str], vocabulary: Vocabulary
) -> np.ndarray:
    """Express an array of labels, predictions or probabilities in another vocabulary.

    Args:
        labels: (..., attributes) array; 1 present, 0 absent, -100 unknown, or probabilities in
            0..1, for which an opposite is 1 - probability.
        attributes: Names of the last axis of `labels`, in order.
        vocabulary: The target vocabulary.

    Returns:
        (..., len(vocabulary)) array of the same dtype (int64 for a boolean or unsigned one); -100
        for attributes that do not follow from `labels`.
    """
    labels = np.asarray(labels)
    if labels.shape[-1] != len(attributes):
        raise ValueError(f"{labels.shape[-1]} columns of labels for {len(attributes)} attributes")
    if labels.dtype.kind in "bu":
        labels = labels.astype(np.int64)
    column = {name: labels[..., index] for index, name in enumerate(attributes)}
    unknown = np.full(labels.shape[:-1], IGNORE_INDEX, labels.dtype)
    derived = []
    for attribute in vocabulary.attributes:
        values = column.get(attribute, unknown)
        opposite = column.get(vocabulary.opposites.get(attribute, ""), unknown)
        negated = np.where(opposite == IGNORE_INDEX, opposite, 1 - opposite)
        derived.append(np.where(values == IGNORE_INDEX, negated, values))
    return np.stack(derived, axis=-1).astype(labels.dtype)
