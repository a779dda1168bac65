"""Map a function over a stream with worker processes, in order and in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from typing import TypeVar

from label2label.streams import map_by

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Apply a function to a stream of items, a few at a time.

    Args:
        function: What to apply; picklable where `workers` is above 1.
        items: The stream; it is read only as far as the workers need, so that memory does not
            depend on its length.
        workers: Number of processes; 1 runs in this one.

    Yields:
        The results, in the order of the items.

    Raises:
        concurrent.futures.process.BrokenProcessPool: If a worker process dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # forking breaks the threads of Arrow and OpenCV
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from map_by(pool, function, items, ahead=2 * workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C belongs to the parent, which stops the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        # A killed parent cannot stop its workers, which would go on writing beside a second run.
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
