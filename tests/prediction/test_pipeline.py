"""Stages in threads keep the order, bound what is under way, and stop when they are left."""

import threading
import time

import pytest
from label2label.prediction.pipeline import map_in_threads, run_ahead


def test_results_keep_the_order_of_the_items():
    def slower_first(i):
        time.sleep(0.002 * (20 - i))
        return i * i

    assert list(map_in_threads(slower_first, range(20), 4, 8)) == [i * i for i in range(20)]
    assert list(run_ahead(iter(range(20)), 3)) == list(range(20))


def test_items_are_taken_a_bounded_number_ahead():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    mapped = map_in_threads(abs, items(), 2, 5)
    assert next(mapped) == 0
    assert len(taken) == 5
    mapped.close()

    taken.clear()
    ahead = run_ahead(items(), 4)
    assert next(ahead) == 0
    time.sleep(0.1)
    assert len(taken) <= 1 + 4 + 1  # taken, waiting, and one that finds no room
    ahead.close()


def test_stages_run_side_by_side():
    # Two threads and this one wait for each other: one after the other, they would never go on.
    together = threading.Barrier(3, timeout=10)

    def wait(i):
        return i == 0 or together.wait() is not None

    stream = run_ahead(map_in_threads(wait, range(5), 2, 4), 4)
    assert next(stream)
    together.wait()
    together.wait()
    assert list(stream) == [True] * 4


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_error_comes_in_its_place_and_ends_the_threads(kind):
    done = []

    def fail_at_five(i):
        if i == 5:
            raise kind("five")
        done.append(i)
        return i

    results = []
    stream = run_ahead(map_in_threads(fail_at_five, range(1000), 2, 4), 2)
    with pytest.raises(kind, match="five"):
        results.extend(stream)
    assert results == [0, 1, 2, 3, 4]
    assert len(done) < 20
    assert "run_ahead" not in {thread.name for thread in threading.enumerate()}


def test_stream_that_is_left_is_closed_and_its_threads_end():
    closed = threading.Event()

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    before = threading.active_count()
    stream = run_ahead(map_in_threads(abs, items(), 3, 6), 4)
    assert next(stream) == 0
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 2
    assert closed.is_set()
    assert threading.active_count() == before
