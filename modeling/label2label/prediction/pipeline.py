"""Run the stages of a stream side by side in threads: in order, in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from label2label.streams import map_by

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 5.0  # seconds that a stage gets to finish what it is at when the stream is closed


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Result]:
    """Apply a function to a stream of items by several threads.

    Args:
        function: what to apply; it releases the GIL for most of its time, or nothing is won.
        items: the stream; it is read at most `ahead` items beyond the result that is taken.
        threads: number of threads.
        ahead: most items under way or finished and not yet taken.

    Yields:
        The results, in the order of the items.

    Raises:
        BaseException: what the function raised, in place of its result; the items behind it are
            dropped. Closing the stream drops them too.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from map_by(pool, function, items, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def run_ahead(stream: Iterator[Item], ahead: int) -> Iterator[Item]:
    """Run a stream in a thread of its own while its earlier items are used.

    Args:
        stream: an iterator, which that thread closes.
        ahead: most items that wait to be taken, at least 1.

    Yields:
        The stream's items.

    Raises:
        BaseException: what the stream raised, after the items before it.
    """
    # Room for the last item and for the end, which a stopped thread may still have to put.
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(max(ahead, 2))
    stopped = threading.Event()

    def produce() -> None:
        end: BaseException = StopIteration()
        try:
            for item in stream:
                results.put((item, None))
                if stopped.is_set():
                    break
        except BaseException as error:  # also an interrupt: it belongs to who takes the items
            end = error
        finally:
            close = getattr(stream, "close", None)
            if close:
                close()
            results.put((None, end))

    thread = threading.Thread(target=produce, name="run_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, end = results.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item
    finally:
        stopped.set()
        while not results.empty():
            results.get_nowait()
        thread.join(PATIENCE)  # not for ever: the stream may wait for something that never comes
