"""Splits that depend on nothing but a name, so that they are the same on every machine."""

from __future__ import annotations

import hashlib

from label2label.data.schema import SPLITS

SPLIT_SHARES = (0.7, 0.1, 0.2)
"""Shares of train, validation and test where a dataset has no partition of its own."""


def hash_fraction(name: str) -> float:
    """A number that looks random but is the same for the same name everywhere.

    Args:
        name: Any text.

    Returns:
        A number in 0..1, 1 excluded, from the first eight bytes of the SHA-256.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def split_by_hash(name: str, shares: tuple[float, float, float] = SPLIT_SHARES) -> str:
    """Split to which a name falls.

    Args:
        name: What must not be torn apart: a person, or an image where persons are not known.
        shares: Shares of `SPLITS`; they add up to 1.

    Returns:
        One of `SPLITS`.
    """
    fraction = hash_fraction(name)
    for split, share in zip(SPLITS, shares, strict=True):
        if fraction < share:
            return split
        fraction -= share
    return SPLITS[-1]
