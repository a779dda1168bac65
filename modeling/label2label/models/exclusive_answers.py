"""Decide attributes without contradictions, such as a goatee without a beard. Needs only numpy."""

from collections.abc import Iterable, Sequence

import numpy as np

# At most one attribute of each group is present: a contradiction in the words' meaning (LogicNet,
# arXiv:2311.11208, counts such answers as failed) that CelebA's own labels avoid too: at most 6 %
# of the rarer attribute's images break a rule. CelebA's labels do combine gray hair or a receding
# hairline with bald, and a five o'clock shadow with no beard, in a quarter of the images: no rules
# here. Nor are things that are merely usual, such as lipstick on women.
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
MAX_SETS = 2**14  # consistent sets of attributes per connected component of the rules


def decide_answers(
    probabilities: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    attributes: Sequence[str],
    exclusive_answers: Iterable[Sequence[str]] | None = None,
) -> np.ndarray:
    """Decide which attributes are present, so that no two of them exclude each other.

    An attribute is present if its probability reaches its threshold. If such attributes exclude
    each other, an exact search keeps the consistent subset with the largest sum of log-odds above
    the thresholds. With thresholds of 0.5 this is the most probable consistent answer, if
    attributes are independent given the image. The rules never add an attribute.

    Args:
        probabilities: float array of shape (batch, attributes), in 0..1.
        thresholds: Least probability, in 0..1, at which each attribute counts as present.
        attributes: Names of the attributes.
        exclusive_answers: Groups of names of which at most one may be present; `None` for no rules.
            Names that are not in `attributes` are ignored.

    Returns:
        bool array of shape (batch, attributes).

    Raises:
        ValueError: If the rules connect too many attributes for an exact search.
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
    """List each connected component's attributes, and its consistent sets as boolean rows.

    Larger sets come first.
    """
    parts: list[set[int]] = []
    for group in groups:
        touched = [part for part in parts if part & group]
        parts = [part for part in parts if not part & group] + [group.union(*touched)]
    found = []
    for part in parts:
        members = sorted(part)
        sets: list[set[int]] = [set()]
        for member in members:
            excluded = set[int]().union(*(group for group in groups if member in group)) - {member}
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
