"""For whom a model is right: the rows by hand, and photos as their publishers lay them out."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary


@pytest.fixture
def fairness(load_benchmark, monkeypatch):
    module = load_benchmark("fairness")
    monkeypatch.setitem(sys.modules, "fairness", module)
    return module


def photo(fairness, number, source="fairface", race=None, age=None, **labels):
    key = f"{source}/{number}.jpg"
    sample = Sample(key, "test", labels, source=source, race=race, age=age)
    return fairness.Photo(sample, None)


@pytest.fixture
def people(fairness):
    """200 photos of FairFace, half men; White and Black in turn, of 25 years."""
    return [
        photo(fairness, i, race=("White", "Black")[i % 2], age=25, Male=i < 100, Young=True)
        for i in range(200)
    ]


def answers_for(photos, right):
    """Answers that are right where `right` says so; None where it is None."""
    return {
        p.key: None if ok is None else {"Male": 0.95 if p.sample.attributes["Male"] == ok else 0.2}
        for p, ok in zip(photos, right, strict=True)
    }


def measure(fairness, photos, answers):
    return fairness.Table(photos, fairness.table_rows(), resamples=200).measure(answers)


def test_accuracy_is_balanced_and_groups_and_their_gap_are_by_hand(fairness, people):
    # Of the women every Black one is called a man: 1/2 + 1/4 overall, 1 and 1/2 by group.
    right = [p.sample.attributes["Male"] or p.sample.race == "White" for p in people]
    measured = measure(fairness, people, answers_for(people, right))
    rows = measured["rows"]
    assert rows["fairface-from-20"]["value"] == pytest.approx(0.75)
    assert rows["fairface-from-20/White"]["value"] == 1
    assert rows["fairface-from-20/Black"]["value"] == pytest.approx(0.5)
    assert rows["dark-skin"]["value"] == pytest.approx(0.5)
    gap = measured["gaps"]["fairface-from-20"]
    groups = "fairface-from-20/Black", "fairface-from-20/White"
    assert (gap["worst"], gap["best"], gap["gap"]) == (*groups, 0.5)
    assert gap["p_value"] < 0.001
    # Wrong are the 50 women who are called men with 0.95; 100 men are right with 0.95.
    assert rows["certain/fairface"]["value"] == pytest.approx(50 / 150)


def test_a_row_of_one_sex_is_judged_by_accuracy(fairness):
    women = [photo(fairness, i, age=70, Male=False) for i in range(40)]
    measured = measure(fairness, women, answers_for(women, [True] * 30 + [False] * 10))
    assert measured["rows"]["women-from-60"]["value"] == pytest.approx(0.75)


def test_faces_that_were_not_found_are_counted_apart(fairness, people):
    answers = answers_for(people, [None] * 20 + [True] * 180)
    del answers[people[199].key]
    rows = measure(fairness, people, answers)["rows"]
    assert rows["found/fairface"]["value"] == pytest.approx(179 / 199)
    assert rows["fairface"]["value"] == 1


def test_models_are_compared_on_the_faces_that_both_found(fairness, people):
    table = fairness.Table(people, fairness.table_rows(), 200)
    first = answers_for(people, [i >= 20 for i in range(200)])
    other = answers_for(people, [None if i < 20 else True for i in range(200)])
    compared = table.compare(first, other)["fairface"]
    assert (compared["difference"], compared["p_value"]) == (0, 1)


def test_the_eleven_attributes_are_averaged_and_follow_from_celebas(fairness):
    # 40 East Asian faces: half smile and have beards, none has a mask. The model says "smiling" and
    # "no beard" of all of them, and has no word for masks.
    eleven = get_vocabulary("korean-11").attributes
    faces = [
        photo(
            *(fairness, i, "all-age-faces"),
            **{
                **dict.fromkeys(eleven, False),
                "Smiling": i < 20,
                "No_Beard": i >= 20,
                "Beard": None,
            },
        )
        for i in range(40)
    ]
    celeba = dict.fromkeys(get_vocabulary("celeba-40").attributes, 0.1)
    answer = celeba | {"Smiling": 0.9, "No_Beard": 0.8}
    table = fairness.Table(faces, fairness.table_rows(), 100)
    rows = table.measure({face.key: answer for face in faces})["rows"]
    assert rows["east-asian-accuracy/Beard"]["value"] == pytest.approx(0.5)
    assert rows["east-asian-accuracy/Wearing_Mask"]["value"] == 1
    assert rows["east-asian-accuracy"]["value"] == pytest.approx(10 / 11)
    assert rows["east-asian-balanced"]["value"] == pytest.approx(0.5)
    assert table.describe()["east-asian-accuracy"]["majority"] == pytest.approx(10 / 11)


def test_photos_are_those_of_the_publishers_by_the_names_of_the_merge(
    fairness, tmp_path, monkeypatch, capsys
):
    from preparation.framing import encode_image  # found once fairness is imported

    def row(source, name, split="test", **labels):
        return Sample(f"{source}/{name}", split, labels, source=source)

    rows = [
        *(row("lfwa", f"P_{i}/P_{i}_0001.jpg", Male=i > 0) for i in range(4)),
        row("fairface", "val/1.jpg#unaligned"),
        row("fairface", "val/2.jpg", split="train"),
        row("celeba", "3.jpg", Male=False),
        row("masks", "with_mask/4.jpg"),
    ]
    monkeypatch.setattr(fairness, "read_stored_samples", lambda _: rows)
    pixels = np.full((218, 178, 3), 90, np.uint8)
    data = encode_image(pixels)
    for name in (
        *(f"lfwa/lfw-deepfunneled/P_{i}/P_{i}_0001.jpg" for i in range(4)),
        *("fairface/fairface-img-margin025-trainval/val/1.jpg", "celeba/img_align_celeba/3.jpg"),
        "celeba-wild/img_celeba/3.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    photos = fairness.read_photos(Path("data"), tmp_path)
    assert "no photos of masks" in capsys.readouterr().err
    by_source = {}
    for one in photos:
        by_source.setdefault(one.source, []).append(one)
    assert [len(by_source[name]) for name in ("lfwa", "fairface", "celeba")] == [2, 1, 1]
    assert by_source["fairface"][0].key == "fairface/val/1.jpg"
    assert [one.key for one in by_source["celeba-wild"]] == ["celeba/3.jpg#wild"]
    assert by_source["celeba-wild"][0].read().shape == by_source["celeba-aligned"][0].read().shape
    (whole,), (masked,) = by_source["celeba"], by_source["celeba-mask"]
    assert np.abs(whole.read().astype(int) - pixels).max() < 3
    changed = np.abs(masked.read().astype(int) - pixels).max(axis=2) > 10
    assert changed[130:170].mean() > 3 * changed[:100].mean()


def test_the_command_writes_rows_models_peers_and_a_plot(
    fairness, people, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fairness, "read_photos", lambda *_: people)
    told = {"old": [i % 3 > 0 for i in range(200)], "new": [True] * 200}
    monkeypatch.setattr(
        fairness,
        "answer_photos",
        lambda name, photos, runs: {
            **{"name": name, "version": "1"},
            "answers": answers_for(photos, told[name]),
        },
    )
    peer = {"name": "a-peer", "version": "1.0", "answers": answers_for(people, [True] * 200)}
    (tmp_path / "peer.json").write_text(json.dumps(peer))
    output = tmp_path / "out" / "fairness.json"
    options = ["--data", "x", "--faces", "x", "--models", "old", "new", "--bootstrap", "100"]
    options += ["--peers", str(tmp_path / "peer.json"), "--output", str(output)]
    options += ["--plot", str(tmp_path / "out" / "fairness.svg")]
    monkeypatch.setattr(sys, "argv", ["fairness.py", *options])
    fairness.main()
    result = json.loads(output.read_text())
    old, new, other = result["models"]
    assert result["subject"] == "new"
    assert result["rows"]["fairface"]["num_photos"] == 200
    assert old["rows"]["fairface"]["value"] == pytest.approx(2 / 3, abs=0.01)
    assert old["subject_against_it"]["fairface"]["interval"][0] > 0.2
    assert (other["peer"], other["subject_against_it"]["fairface"]["difference"]) == (True, 0)
    assert "subject_against_it" not in new
    assert output.with_suffix(".svg").stat().st_size > 5_000
    (line,) = [ln for ln in capsys.readouterr().out.splitlines() if ln.startswith("FairFace  ")]
    assert line.split() == ["FairFace", "66.5", "100.0", "100.0"]


def test_predictions_are_cached_by_photo_until_the_version_changes(fairness, people, tmp_path):
    asked = []

    def ask(photos):
        for one in photos:
            asked.append(one.key)
            yield {"Male": 0.9}

    file, first = tmp_path / "peer.json", {"name": "a-peer", "version": "1"}
    fairness.cached_answers(file, first, people[:3], ask)
    told = fairness.cached_answers(file, first, people[:5], ask)
    assert asked == [p.key for p in people[:5]]
    assert set(told["answers"]) == set(asked) == set(fairness.load_answers(file)["answers"])
    fairness.cached_answers(file, first | {"version": "2"}, people[:1], ask)
    assert len(asked) == 6
    file.write_text("[]")
    with pytest.raises(fairness.UserError, match="holds no predictions"):
        fairness.load_answers(file)


def test_a_peer_is_shown_pixels_and_its_face_nearest_the_middle_is_taken(
    load_benchmark, fairness, monkeypatch, tmp_path
):
    peers = load_benchmark("peers")
    program = tmp_path / "echo.py"
    program.write_text("""
import json, sys
while line := sys.stdin.buffer.readline():
    width, height = map(int, line.split())
    first = sys.stdin.buffer.read(width * height * 3)[0]
    faces = [{"box": [0, 0, 2, 2], "male": 0.1, "age": 9}]
    faces.append({"box": [4, 4, 6, 6], "male": 0.9, "age": 60})
    print(json.dumps(faces if first else []), flush=True)
""")
    shown = [photo(fairness, i) for i in range(2)]
    pixels = {p.key: np.full((10, 10, 3), i, np.uint8) for i, p in enumerate(shown)}
    monkeypatch.setattr(fairness.Photo, "read", lambda self: pixels[self.key])
    none, face = peers.ask([sys.executable, str(program)], shown)
    assert none is None
    assert face["Male"] == 0.9
    assert face["Young"] < 0.01
