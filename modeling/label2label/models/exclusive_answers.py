"""The most probable answers of a sentence that does not contradict itself. Needs numpy alone."""

from collections.abc import Iterable, Sequence

import numpy as np

# At most one attribute of each group is present. They are what the words mean (LogicNet,
# arXiv:2311.11208, counts answers that contradict each other as failed) wherever CelebA's own
# labels follow it: at most 6 % of the rarer attribute's images break one. So a gray-haired or
# receding hairline may be bald, and a five o'clock shadow may be no beard: a quarter of CelebA's
# labels say so. What is only usual, such as lipstick on women, is no rule.
CELEBA_EXCLUSIVE_ANSWERS = [
    ["Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"],
    ["Straight_Hair", "Wavy_Hair"],
    ["Bald", "Black_Hair", "Blond_Hair", "Brown_Hair"],
    ["Bald", "Straight_Hair", "Wavy_Hair"],
    ["Bald", "Bangs"],
    ["Bangs", "Receding_Hairline"],
    ["No_Beard", "Goatee"],
    ["No_Beard", "Mustache"],
    ["No_Beard", "Sideburns"],
]
MAX_SETS = 2**14  # consistent sets of answers that one part of the rules may have


def decide_answers(
    probabilities: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    attributes: Sequence[str],
    exclusive_answers: Iterable[Sequence[str]] | None = None,
) -> np.ndarray:
    """
    Decide which attributes are present, so that no answer contradicts another.

    An attribute is present from its threshold on. Where the attributes that reach their thresholds
    exclude each other, the decision is the set without a contradiction whose product of odds, each
    over the odds at its attribute's threshold, is largest, found exactly: with thresholds of 0.5
    the most probable of all such sets, attributes being independent given the image. So the rules
    only ever take an attribute away, and with one group the one furthest above its threshold stays.

    Args:
        probabilities: float array of shape (batch, attributes), in 0..1.
        thresholds: Probability from which each attribute counts as present, in 0..1.
        attributes: Their names.
        exclusive_answers: Groups of names of which at most one may be present; `None` for no rules.
            Names that are not among `attributes` are ignored.

    Returns:
        bool array of shape (batch, attributes).

    Raises:
        ValueError: If the rules join so many attributes that their sets cannot be gone through.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    least = np.asarray(thresholds, dtype=np.float64)
    present = probabilities >= least
    index = {name: i for i, name in enumerate(attributes)}
    groups = [{index[name] for name in group if name in index} for group in exclusive_answers or ()]
    scores = _log_odds(probabilities) - _log_odds(least)
    scores = np.where(present, np.maximum(scores, 0.0), -1.0)
    for members, sets in _consistent_sets([group for group in groups if len(group) > 1]):
        best = (scores[:, members] @ sets.T).argmax(axis=1)
        present[:, members] = sets[best]
    return present


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    inside = probabilities.clip(1e-12, 1 - 1e-12)
    return np.log(inside) - np.log1p(-inside)


def _consistent_sets(groups: list[set[int]]) -> list[tuple[list[int], np.ndarray]]:
    """For each connected part of the rules: its attributes, and every set of them without a
    contradiction as a row of booleans, larger sets first."""
    parts: list[set[int]] = []
    for group in groups:
        touched = [part for part in parts if part & group]
        parts = [part for part in parts if not part & group] + [group.union(*touched)]
    found = []
    for part in parts:
        members, sets = sorted(part), [frozenset[int]()]
        for member in members:
            excluded = set().union(*(group for group in groups if member in group)) - {member}
            sets += [{member} | chosen for chosen in sets if not chosen & excluded]
            if len(sets) > MAX_SETS:
                raise ValueError(
                    f"exclusive_answers join {len(part)} attributes in more than {MAX_SETS} ways: "
                    "fewer or larger groups are needed"
                )
        sets.sort(key=len, reverse=True)
        rows = np.array([[member in chosen for member in members] for chosen in sets])
        found.append((members, rows))
    return found


__all__ = ["CELEBA_EXCLUSIVE_ANSWERS", "decide_answers"]
