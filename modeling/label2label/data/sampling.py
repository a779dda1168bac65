"""Which images an epoch draws: all once, or some more often, always the same from the same seed."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int | tuple[int, int]]):
    """
    Rows of one epoch in an order that depends on `seed` and `epoch` alone, from any position on.

    Without probabilities every row comes once. With them, a row of probability p comes floor(n p)
    or ceil(n p) times in an epoch of n images (systematic resampling, Kitagawa 1996), so that no
    group's share is left to chance; it comes as `(row, occurrence)`, the latter how often the epoch
    drew it before, so that each time can be augmented otherwise.

    Args:
        num_samples: Length of the dataset.
        seed: Seed of the permutations.
        probabilities: (num_samples,), not negative, of sum 1; `None` for every image once.
    """

    def __init__(self, num_samples: int, seed: int, probabilities: np.ndarray | None = None):
        self.num_samples = num_samples
        self.seed = seed
        self.probabilities = probabilities
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[int | tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.num_samples)
        if self.probabilities is None:
            yield from order[self.start :].tolist()
            return
        ends = self.num_samples * np.cumsum(self.probabilities[order])
        ends[-1] = self.num_samples
        points = rng.random() + np.arange(self.num_samples)
        order = rng.permutation(order[np.searchsorted(ends, points, side="right")])
        drawn: Counter[int] = Counter()
        for position, row in enumerate(order.tolist()):
            if position >= self.start:
                yield row, drawn[row]
            drawn[row] += 1

    def __len__(self) -> int:
        return self.num_samples - self.start


def draw_probabilities(
    source_of: np.ndarray, shares: list[float | None], group_of: np.ndarray | None = None
) -> np.ndarray | None:
    """
    Gives sources their shares of an epoch, then groups equal shares of what is in a group.

    Args:
        source_of: (images,), index of each image's source.
        shares: One a source, 0..1: which share of the drawn images is its own. Sources without one
            divide what is left by their numbers of images.
        group_of: (images,), index of each image's group, -1 for none; `None` to leave groups as
            they are.

    Returns:
        (images,) of sum 1, or `None` where every image is as likely as any other.

    Raises:
        ValueError: If the shares leave nothing for the others, or do not add up to 1.
    """
    if all(share is None for share in shares) and group_of is None:
        return None
    sizes = np.bincount(source_of, minlength=len(shares)).astype(float)
    given = np.array([np.nan if share is None else share for share in shares])
    open_sources = np.isnan(given)
    left = 1 - np.nansum(given)
    if open_sources.any() != (left > 1e-9) or left < -1e-9:
        raise ValueError(f"the shares of the sources add up to {np.nansum(given):g}, not to 1")
    given[open_sources] = left * sizes[open_sources] / max(sizes[open_sources].sum(), 1)
    probabilities = (given / sizes)[source_of]
    if group_of is not None:
        grouped = group_of >= 0
        mass = np.bincount(group_of[grouped], probabilities[grouped])
        target = mass.sum() / np.count_nonzero(mass)
        # A group that lies in sources of share 0 alone stays at 0.
        scale = np.divide(target, mass, out=np.zeros_like(mass), where=mass > 0)
        probabilities[grouped] *= scale[group_of[grouped]]
    return probabilities / probabilities.sum()
