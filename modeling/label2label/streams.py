"""Map a function over a stream by a pool of threads or processes: in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_by(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Apply a function to a stream of items, a few at a time.

    Args:
        pool: what applies it; who made it shuts it down.
        function: what to apply; picklable where the pool is of processes.
        items: the stream; it is read at most `ahead` items beyond the result that is taken.
        ahead: most items under way or finished and not yet taken, at least 1.

    Yields:
        The results, in the order of the items.

    Raises:
        BaseException: what the function raised, in place of its result.
    """
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
