"""`benchmarks/hostile.py` at a size that CI bears: what it runs holds, and it counts what does not.

Mutations of configs, recipes, metadata and tables stand beside the tests of their parsers:
`pytest -m hostile` runs all of them.
"""

import importlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # its programs import each other as modules
hostile = importlib.import_module("hostile")

pytestmark = pytest.mark.hostile
SLOW = pytest.mark.slow


def test_damage_is_the_same_for_the_same_number_and_passes_a_pngs_checksums():
    seeds = hostile.encode_seeds()
    mutants = [hostile.mutate_image(seeds, index) for index in range(200)]
    assert mutants == [hostile.mutate_image(seeds, index) for index in range(200)]
    assert len(set(mutants)) > 190
    (png, *_) = [seed for seed in seeds if seed.startswith(b"\x89PNG")]
    broken = png[:40] + bytes([png[40] ^ 1]) + png[41:]
    assert hostile.repair_png(broken) != broken
    assert hostile.repair_png(png) == png


@pytest.mark.parametrize(
    "name",
    ["predict", "training", *(pytest.param(n, marks=SLOW) for n in ("handler", "preparation"))],
)
def test_a_reader_reads_or_refuses_damaged_images(name, tmp_path):
    found = hostile.run_reader(name, hostile.READERS[name], 150, tmp_path)
    assert found["faults"] == {}
    assert found["read"] + found["refused"] == 150
    assert found["read"] >= 15
    assert not list(tmp_path.iterdir())


def failing(fail):
    """A reader that fails at every image but the first, by which it gets ready."""
    calls = []

    def read(data):
        calls.append(len(data))
        if len(calls) > 1:
            fail()

    return read, ValueError


def crashing():
    return failing(os.abort)


def hanging():
    return failing(lambda: time.sleep(60))


def greedy():
    return failing(lambda: len(b"x" * 100_000_000))


def raising():
    return failing(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("build", "kind", "count"),
    [
        (crashing, "crash: exit code -6", 2),
        (hanging, "hang", 2),
        (greedy, "much memory", 1),  # after which the peak does not rise again
        (raising, "ZeroDivisionError: division by zero", 2),
    ],
)
def test_every_kind_of_fault_is_counted_and_its_image_kept(build, kind, count, tmp_path):
    found = hostile.run_reader(
        "faulty", build, 2, tmp_path / "kept", hang_seconds=2, memory_bytes=2**26
    )
    assert found["faults"] == {kind: count}
    assert len(list((tmp_path / "kept").iterdir())) == count


def test_memory_that_grows_is_a_fault():
    flat, rising = [2**30] * 100, [2**30 + i * 2**23 for i in range(100)]
    assert hostile.report(Counter(), flat, 0)["faults"] == {}
    assert hostile.report(Counter(), rising, 0)["faults"] == {"memory grows": 1}


PROGRAM = """
import pathlib, sys, time
output = pathlib.Path(sys.argv[1])
output.mkdir(parents=True, exist_ok=True)
done = len(list(output.iterdir()))
for number in range({first}, 10):
    (output / str(number)).write_text("x")
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("first", "faults"),
    [("0", set()), ("done + 1 if done else 0", {"another result than undisturbed"})],
)
def test_a_killed_program_that_loses_a_file_is_found(first, faults, tmp_path):
    task = hostile.Task(
        lambda output: [sys.executable, "-c", PROGRAM.format(first=first), str(output)],
        at_work=lambda output: (output / "1").exists(),
        result=lambda output: sorted(path.name for path in output.iterdir()),
    )
    found = hostile.run_task("lossy", task, 3, tmp_path)
    assert found["kills"] == 3
    assert set(found["faults"]) == faults


@SLOW
def test_killed_commands_go_on_to_the_same_result(tmp_path):
    found = hostile.kill_commands(tmp_path, photos=40, kills=1)
    assert list(found) == ["preparation", "training", "labelling", "push"]
    assert not any(row["faults"] for row in found.values())


def test_the_spaces_answer_is_a_face_or_to_a_damaged_photo_an_error_that_it_knows():
    failed = {"error": {"code": "failed"}}
    refused = {"error": {"code": "not_an_image"}}
    assert hostile.judge_answer({"faces": [{}]}, damaged=False) == "read"
    assert hostile.judge_answer(refused, damaged=True) == "refused"
    assert hostile.judge_answer(refused, damaged=False) == "answer: not_an_image"
    assert hostile.judge_answer(failed, damaged=True) == "answer: failed"
    assert hostile.judge_answer({}, damaged=True) == "answer: no answer"


def test_parts_are_run_alone_and_the_others_figures_kept(tmp_path, monkeypatch, capsys):
    output = tmp_path / "hostile.json"
    output.write_text(json.dumps({"images": {"predict": {"faults": {}}}}))
    found = {"push": {"kills": 2, "faults": {"leaves x": 2}}}
    monkeypatch.setitem(hostile.PARTS, "kills", lambda args: found)
    monkeypatch.setattr(sys, "argv", ["hostile", "--parts", "kills", "--output", str(output)])
    hostile.main()
    assert capsys.readouterr().out == "kills: 2 faults\n"
    figures = json.loads(output.read_text())
    assert set(figures) == {"images", "kills", "machine"}
    assert figures["kills"]["push"] == found["push"]
