"""Who a model is right for: the rows by hand, the sets as their publishers lay them out."""

import csv
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def fairness(load_benchmark):
    return load_benchmark("fairness")


def photo(fairness, number, source="fairface", **about):
    return fairness.TestPhoto(source, f"{number}.jpg", "", **about)


@pytest.fixture
def people(fairness):
    """200 photos of FairFace, half men; White and Black in turn, of 25 years."""
    return [
        photo(
            *(fairness, i),
            race=("White", "Black")[i % 2],
            age=25,
            labels={"Male": i < 100, "Young": True},
        )
        for i in range(200)
    ]


def answers_for(photos, right):
    """Answers that are right where `right` says so; None where it is None."""
    return {
        p.key: None if ok is None else {"Male": 0.95 if p.labels["Male"] == ok else 0.2}
        for p, ok in zip(photos, right, strict=True)
    }


def test_accuracy_is_balanced_and_groups_and_their_gap_are_by_hand(fairness, people):
    # Of the women every Black one is called a man: 1/2 + 1/4 overall, 1 and 1/2 by group.
    right = [p.labels["Male"] or p.race == "White" for p in people]
    table = fairness.Table(people, fairness.table_rows(), resamples=200)
    measured = table.measure(answers_for(people, right))
    rows = measured["rows"]
    assert rows["fairface-from-20"]["value"] == pytest.approx(0.75)
    assert rows["fairface-from-20"]["metric"] == "balanced_accuracy"
    assert rows["fairface/White"]["value"] == 1
    assert rows["fairface/Black"]["value"] == pytest.approx(0.5)
    assert rows["dark-skin"]["value"] == pytest.approx(0.5)
    gap = measured["gaps"]["fairface-from-20"]
    assert (gap["worst"], gap["best"], gap["gap"]) == ("fairface/Black", "fairface/White", 0.5)
    assert gap["p_value"] < 0.001
    # Wrong are the 50 women who are called men with 0.95; 100 men are right with 0.95.
    assert rows["certain/fairface"]["value"] == pytest.approx(50 / 150)
    assert rows["certain/fairface"]["num_certain"] == 150


def test_a_row_of_one_sex_is_judged_by_accuracy(fairness, people):
    women = [photo(fairness, i, age=70, labels={"Male": False}) for i in range(40)]
    right = [True] * 30 + [False] * 10
    row = fairness.Table(women, fairness.table_rows(), 100).measure(answers_for(women, right))
    assert row["rows"]["women-from-60"]["metric"] == "accuracy"
    assert row["rows"]["women-from-60"]["value"] == pytest.approx(0.75)


def test_faces_that_were_not_found_and_photos_not_asked_about_are_counted_apart(fairness, people):
    answers = answers_for(people, [None] * 20 + [True] * 180)
    del answers[people[199].key]
    row = fairness.Table(people, fairness.table_rows(), 100).measure(answers)["rows"]["fairface"]
    assert (row["num_asked"], row["num_found"], row["num_yes"]) == (199, 179, 80)
    assert row["value"] == 1


def test_models_are_compared_on_the_faces_that_both_found(fairness, people):
    table = fairness.Table(people, fairness.table_rows(), 200)
    first = answers_for(people, [i >= 20 for i in range(200)])
    other = answers_for(people, [None if i < 20 else True for i in range(200)])
    compared = table.compare(first, other)["fairface"]
    assert (compared["difference"], compared["p_value"]) == (0, 1)


@pytest.fixture
def sets(tmp_path) -> Path:
    """A few names of every set, as the publishers lay them out."""

    def write(path, *lines):
        path = tmp_path / "faces" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    def pack(path, *names):
        with zipfile.ZipFile(tmp_path / "faces" / path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")

    people = [f"P_{i}" for i in range(40)]
    names = [f"{p}/{p}_0001.jpg" for p in people]
    write("lfwa/lfw_att_40.txt", "Male Wearing_Lipstick", *(f"{n} -1 -1" for n in names))
    with (tmp_path / "lfw_labels.csv").open("w", newline="") as file:
        rows = [[name, i % 4 > 0, ""] for i, name in enumerate(names)]
        csv.writer(file).writerows(
            [["image", "male", "smiling"], *[[n, int(m), s] for n, m, s in rows]]
        )
    header = "file,age,gender,race,service_test"
    write("fairface/fairface_label_val.csv", header, "val/1.jpg,more than 70,Female,Black,True")
    write("celeba/list_attr_celeba.txt", "2", "Male Bangs", "1.jpg 1 -1", "2.jpg -1 1")
    write("celeba/list_eval_partition.txt", "1.jpg 0", "2.jpg 2")
    write("celeba/identity_CelebA.txt", "1.jpg 5", "2.jpg 6")
    pack("celeba/img_align_celeba.zip", "img_align_celeba/1.jpg", "img_align_celeba/2.jpg")
    write("utkface/.keep")
    pack("utkface/UTKFace.zip", *(f"UTKFace/{n}_0_1_2017.jpg.chip.jpg" for n in range(1, 60)))
    for folder, images in (
        ("all-age-faces", ("07380A39.jpg", "07381A02.jpg")),
        ("scut-fbp5500", ("AF1.jpg", "CM1.jpg")),
        ("masks", ("with_mask/1.jpg", "without_mask/1.jpg")),
    ):
        write(f"{folder}/splits.csv", "image,split", *(f"{n},test" for n in images), "no.jpg,train")
    return tmp_path


def test_test_photos_and_their_labels_are_read_from_every_set(fairness, sets):
    photos = fairness.read_photos(sets / "faces", sets / "lfw_labels.csv")
    by_source = {}
    for p in photos:
        by_source.setdefault(p.source, []).append(p)
    lfw = by_source["lfw"]
    assert 0 < len(lfw) < 40
    assert sum(p.labels["Male"] for p in lfw) * 2 == len(lfw)
    assert all(p.labels["Wearing_Lipstick"] is False for p in lfw)
    assert (by_source["fairface"][0].age, by_source["fairface"][0].race) == (70, "Black")
    assert [(p.name, p.person) for p in by_source["celeba"]] == [("2.jpg", "6")]
    assert 3 < len(by_source["utkface"]) < 25
    assert {p.race for p in by_source["utkface"]} == {"Black"}
    women, men = by_source["all-age-faces"]
    assert (women.labels, women.age) == ({"Male": False, "Young": True}, 39)
    assert men.labels["Male"]
    assert [p.race for p in by_source["scut"]] == ["Asian", "Caucasian"]
    assert [p.labels["Wearing_Mask"] for p in by_source["masks"]] == [True, False]


def test_the_command_writes_rows_models_peers_and_a_plot(
    fairness, people, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fairness, "read_photos", lambda *_: people)
    told = {"old": [i % 3 > 0 for i in range(200)], "new": [True] * 200}
    monkeypatch.setattr(
        fairness,
        "answer_photos",
        lambda model, photos, runs: {"name": model, "answers": answers_for(photos, told[model])},
    )
    peer = {"name": "a-peer", "version": "1.0", "answers": answers_for(people, [True] * 200)}
    (tmp_path / "peer.json").write_text(json.dumps(peer))
    output = tmp_path / "out" / "fairness.json"
    options = ["--faces", "x", "--lfw-labels", "x", "--models", "old", "new", "--bootstrap", "100"]
    options += ["--peers", str(tmp_path / "peer.json"), "--output", str(output)]
    assert fairness.main(options) == 0
    result = json.loads(output.read_text())
    old, new, other = result["models"]
    assert result["subject"] == "new"
    assert old["rows"]["fairface"]["value"] == pytest.approx(2 / 3, abs=0.01)
    assert old["subject_against_it"]["fairface"]["interval"][0] > 0.2
    assert (other["peer"], other["subject_against_it"]["fairface"]["difference"]) == (True, 0)
    assert "subject_against_it" not in new
    assert output.with_suffix(".svg").stat().st_size > 5_000
    assert "| FairFace, all ages | 200 | 66." in capsys.readouterr().out


def test_a_file_that_is_no_peers_is_one_line(fairness, people, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fairness, "read_photos", lambda *_: people)
    (tmp_path / "peer.json").write_text("[]")
    options = ["--faces", "x", "--lfw-labels", "x", "--models", "m"]
    monkeypatch.setattr(fairness, "answer_photos", lambda *_: {"name": "m", "answers": {}})
    assert fairness.main([*options, "--peers", str(tmp_path / "peer.json")]) == 2
    assert "holds no answers of benchmarks/peers.py" in capsys.readouterr().err


def test_a_peer_is_shown_pixels_and_its_face_nearest_the_middle_is_taken(
    load_benchmark, fairness, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "fairness", fairness)
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
    monkeypatch.setattr(fairness.TestPhoto, "read", lambda self: pixels[self.key])
    answers = dict(peers.ask([sys.executable, str(program)], shown))
    assert answers[shown[0].key] is None
    assert answers[shown[1].key]["Male"] == 0.9
    assert answers[shown[1].key]["Young"] < 0.01
