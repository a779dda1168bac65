"""Faces are followed over the frames of a video, and their attributes averaged."""

import csv
import os
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from label2label.cli import main
from label2label.prediction.predictor import AttributePredictor
from label2label.prediction.video import FaceTracker

FRAMES, RATE = 12, 25


@pytest.fixture(scope="module")
def film(portrait, tmp_path_factory):
    """Two people who move: one to the right, the other out of sight for two frames."""
    astronaut = pytest.importorskip("skimage.data").astronaut()[:300, 80:380]
    left = np.asarray(portrait.resize((300, 352)))[:300]
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (800, 320))
    for index in range(FRAMES):
        frame = np.full((320, 800, 3), 90, np.uint8)
        frame[10:310, 10 + 6 * index : 310 + 6 * index] = left
        if index not in (5, 6):
            frame[10:310, 480:780] = astronaut
        writer.write(frame[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def run(exported, capsys):
    """Runs the command; returns its exit code, standard output and standard error."""

    def run(film, *arguments):
        code = main(["video", str(film), "--model", str(exported), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def read_table(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [{k: v if k == "present" else float(v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_each_face_keeps_its_number_over_the_frames(suffix, run, film, tmp_path):
    output = tmp_path / f"table{suffix}"
    code, out, err = run(film, "--output", output)
    assert code == 0, err
    assert f"{FRAMES} frames, 2 faces" in out
    rows = read_table(output)
    assert {row["frame"] for row in rows} == {*range(FRAMES)}
    first = [row for row in rows if row["track"] == 0]
    second = [row for row in rows if row["track"] == 1]
    assert [row["frame"] for row in first] == [*range(FRAMES)]
    assert [row["frame"] for row in second] == [i for i in range(FRAMES) if i not in (5, 6)]
    assert first[-1]["x0"] - first[0]["x0"] == pytest.approx(6 * (FRAMES - 1), abs=25)
    assert [row["time"] for row in first] == pytest.approx(
        [i / RATE for i in range(FRAMES)], abs=0.02
    )
    assert all(0 <= row[name] <= 1 for row in rows for name in ("Smiling", "Male", "score"))
    for row in rows:
        present = [name for name in ("Male", "Smiling") if row[name] > 0.5]
        assert row["present"] == "; ".join(sorted(present, key=lambda name: -row[name]))


def test_annotated_video_has_every_frame_and_boxes(run, film, tmp_path):
    drawn = tmp_path / "drawn.mp4"
    code, _, err = run(film, "--output", tmp_path / "t.csv", "--draw", drawn, "--language", "ko")
    assert code == 0, err
    capture = cv2.VideoCapture(str(drawn))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == FRAMES
    assert frames[0].shape == (320, 800, 3)
    original = cv2.VideoCapture(str(film)).read()[1]
    assert (np.abs(frames[0].astype(int) - original) > 60).mean() > 0.01


def test_interrupt_keeps_what_is_done(run, film, tmp_path, monkeypatch):
    predict, calls = AttributePredictor.__call__, []

    def interrupt(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(AttributePredictor, "__call__", interrupt)
    for name in ("t.csv", "t.parquet"):
        calls.clear()
        code, out, err = run(film, "--output", tmp_path / name, "--draw", tmp_path / "d.mp4")
        assert code == 130
        assert "interrupted" in err
        assert "4 frames, 2 faces" in out
        assert {row["frame"] for row in read_table(tmp_path / name)} == {0, 1, 2, 3}
        assert cv2.VideoCapture(str(tmp_path / "d.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def write_missing(path, film):
    return [path, "--output", path.with_name("t.csv")], "no such file"


def write_text(path, film):
    path.write_text("no video")
    return [path, "--output", path.with_name("t.csv")], "is not a video that OpenCV can read"


def write_truncated(path, film):
    path.write_bytes(film.read_bytes()[:2000])
    return [path, "--output", path.with_name("t.csv")], "is not a video that OpenCV can read"


def give_no_camera(path, film):
    return ["87", "--output", path.with_name("t.csv")], "no camera 87 can be opened"


def give_odd_table(path, film):
    return [film, "--output", path.with_name("t.xls")], "ends in .csv or .parquet"


def give_itself(path, film):
    path.write_bytes(film.read_bytes())
    output = path.with_name("t.csv")
    return [path, "--output", output, "--draw", path], "is the video itself"


@pytest.mark.parametrize(
    "prepare",
    [write_missing, write_text, write_truncated, give_no_camera, give_odd_table, give_itself],
)
def test_what_will_not_do_is_one_line(prepare, run, film, tmp_path):
    arguments, message = prepare(tmp_path / "bad.mp4", film)
    before = (tmp_path / "bad.mp4").read_bytes() if (tmp_path / "bad.mp4").exists() else None
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "t.csv").exists()
    if before is not None:
        assert (tmp_path / "bad.mp4").read_bytes() == before


def test_broken_video_prints_nothing_of_opencv(exported, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "label2label", "video", tmp_path / "bad.mp4"),
            *("--model", exported, "--output", tmp_path / "t.csv"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert all(line.startswith(("error: ", "warning: ")) for line in done.stderr.splitlines())


def face(x, probability):
    return {"box": [x, 0, x + 100, 100], "score": 0.9, "attributes": {"Smiling": probability}}


def test_average_is_steady_and_follows_a_change():
    tracker = FaceTracker()
    noise = np.random.default_rng(0).uniform(0, 1, 200)
    averages = [
        tracker.update([face(0, p)], i / RATE)[0].attributes["Smiling"] for i, p in enumerate(noise)
    ]
    assert averages[0] == noise[0]
    assert averages[1] == pytest.approx(noise[:2].mean())
    assert np.std(averages[50:]) < np.std(noise) / 4
    for i in range(200, 200 + 3 * RATE):  # three half-lives
        (track,) = tracker.update([face(0, 1.0)], i / RATE)
    assert track.attributes["Smiling"] == pytest.approx(1.0, abs=0.1)
    assert tracker.count == 1


def test_face_elsewhere_or_back_after_long_is_another_one():
    tracker = FaceTracker()
    assert tracker.update([face(0, 0.5), face(300, 0.5)], 0.0)[1].number == 1
    assert [t.number for t in tracker.update([face(310, 0.5), face(5, 0.5)], 0.04)] == [1, 0]
    assert [t.number for t in tracker.update([face(900, 0.5)], 0.08)] == [2]
    assert [t.number for t in tracker.update([face(5, 0.5)], 0.9)] == [0]
    assert [t.number for t in tracker.update([face(5, 0.5)], 2.5)] == [3]
