"""Mutations of a file, for parsers that strangers' files reach."""

from collections.abc import Iterator

import numpy as np

PIECES = (b"\x00", b"\xff\xfe", b"\r", b"\n", b"\t", b";", b",", b'"', b"[" * 50, b"{", b"&a ")
PIECES += (b"*a", b": ", b"- ", b"<<", b"!!", b"1e999", b"-1", b"9" * 40, b".nan", b"null", b"\xed")
PIECES += (b"2001-99-99", b"\xc3", "동".encode(), b"\x1b[2J", b"%", b"'", b"|", b">", b"\\")


def mutate(content: bytes, count: int) -> Iterator[bytes]:
    """The same mutations of the same content: bytes changed, cut out, doubled or put in."""
    rng = np.random.default_rng(len(content))
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            start = int(rng.integers(0, len(changed) + 1))
            stop = start + int(rng.integers(0, 12))
            kind = rng.integers(4)
            if kind == 0 and start < len(changed):
                changed[start] = int(rng.integers(256))
            elif kind == 1:
                del changed[start:stop]
            elif kind == 2:
                changed[start:start] = changed[start:stop] * int(rng.integers(1, 20))
            else:
                changed[start:start] = PIECES[rng.integers(len(PIECES))]
        yield bytes(changed)
