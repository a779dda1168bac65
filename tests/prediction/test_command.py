"""`label2label predict`: tables, JSON and exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from label2label.cli import main
from PIL import Image

from .conftest import NAMES


@pytest.fixture
def photos(portrait, tmp_path):
    """A folder of a portrait, a picture without a face, and files that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    portrait.save(folder / "portrait.png")
    portrait.save(folder / "more" / "again.jpg", quality=95)
    Image.new("RGB", (200, 200), "gray").save(folder / "wall.png")
    return folder


@pytest.fixture
def predict(model_folder, capsys):
    """Runs the command; returns its exit code, standard output and standard error."""

    def run(*arguments):
        code = main(["predict", "--model", str(model_folder), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_json_is_the_documented_structure(predict, photos):
    code, out, _ = predict("--json", photos)
    assert code == 0
    entries = json.loads(out)
    assert [entry["image"] for entry in entries] == [
        str(photos / name) for name in ("portrait.png", "wall.png", "more/again.jpg")
    ]
    assert [len(entry["faces"]) for entry in entries] == [1, 0, 1]
    for entry in entries:
        assert list(entry) == ["image", "faces"]
        for face in entry["faces"]:
            keys = ["box", "score", "size", "roll", "warnings", "attributes", "present"]
            assert list(face) == keys
            assert len(face["box"]) == 4
            assert len(face["attributes"]) == 5


def test_unreadable_file_is_an_entry_and_exit_code_1(predict, photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    code, out, err = predict("--json", photos, photos / "gone.jpg")
    assert code == 1
    errors = {e["image"]: e["error"] for e in json.loads(out) if "error" in e}
    assert list(errors) == [str(photos / "broken.jpg"), str(photos / "gone.jpg")]
    assert sum("faces" in entry for entry in json.loads(out)) == 3
    assert "Traceback" not in err


def test_name_that_is_too_long_is_an_entry_and_the_other_photos_are_predicted(predict, photos):
    long = photos / ("a" * 300 + ".jpg")
    code, out, _ = predict("--json", long, photos / "portrait.png")
    assert code == 1
    first, second = json.loads(out)
    assert first == {"image": str(long), "error": "cannot be read: File name too long"}
    assert len(second["faces"]) == 1


def test_table_names_faces_attributes_and_photos_without_a_face(predict, photos):
    code, out, err = predict(photos)
    assert code == 0
    assert f"{photos / 'portrait.png'}: 1 face" in out
    assert f"{photos / 'wall.png'}: no face found" in out
    assert out.count("Wearing Hat") == 2
    assert "error" not in err


def test_table_says_errors_on_standard_error(predict, tmp_path):
    code, out, err = predict(tmp_path / "gone.jpg")
    assert code == 1
    assert out == ""
    assert f"{tmp_path / 'gone.jpg'}: error: no such file\n" in err


def test_threshold_zero_says_yes_to_all(predict, photos):
    _, out, _ = predict("--threshold", "0", photos / "portrait.png")
    assert "no  (none)" in out
    assert "yes (none)" not in out


def test_the_table_decides_by_the_models_own_thresholds(model_folder, photos, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "calibrated")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["attributes"] = ["Young", *(name for name in NAMES if name != "Young")]
    settings["thresholds"] = [0.0, 1.0, 1.0, 1.0, 1.0]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    main(["predict", "--model", str(folder), str(photos / "portrait.png")])
    (yes,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("    yes"))
    assert "Young" in yes
    assert yes.count("%") == 1


def test_no_align_takes_the_image_as_it_is(predict, photos):
    code, out, _ = predict("--no-align", "--json", photos / "wall.png")
    assert code == 0
    (entry,) = json.loads(out)
    assert entry["faces"][0]["box"] == [0.0, 0.0, 200.0, 200.0]


def test_nothing_to_predict_is_still_json(predict, tmp_path):
    code, out, _ = predict("--json", tmp_path)
    assert code == 1
    assert json.loads(out) == [{"image": str(tmp_path), "error": "no photos in this folder"}]


def test_interrupted_json_is_whole_and_exits_130(predict, photos, monkeypatch):
    from label2label.prediction import predictor

    read = predictor.load_photo

    def interrupt(path, *more):
        if Path(path).name == "wall.png":
            raise KeyboardInterrupt
        return read(path, *more)

    monkeypatch.setattr(predictor, "load_photo", interrupt)
    code, out, _ = predict("--json", "--batch-size", "1", photos)
    assert code == 130
    assert [entry["image"] for entry in json.loads(out)] == [str(photos / "portrait.png")]


def test_drawings_are_written_beside_no_photo_and_say_what_is_present(predict, photos, tmp_path):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    code, out, _ = predict("--json", "--draw", photos, photos)
    assert code == 0
    drawings = [Path(entry["drawing"]) for entry in json.loads(out)]
    assert [path.name for path in drawings] == [
        *("portrait-faces.jpg", "wall-faces.jpg", "again-faces.jpg")
    ]
    assert {path: path.read_bytes() for path in before} == before
    code, _, err = predict("--draw", photos / "wall.png", photos)
    assert code == 2
    assert "wall.png is a file: give a folder" in err


def test_language_without_a_drawing_is_refused(predict, photos):
    code, out, err = predict("--language", "ko", photos)
    assert (code, out) == (2, "")
    assert "--language translates the names that --draw writes" in err


def test_photos_of_equal_names_get_drawings_of_their_own(predict, photos, portrait, tmp_path):
    portrait.convert("L").save(photos / "more" / "portrait.png")
    predict("--draw", tmp_path / "drawn", photos / "portrait.png", photos / "more" / "portrait.png")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        *("portrait-faces-2.jpg", "portrait-faces.jpg")
    ]


@pytest.mark.parametrize("form", ["json", "table"])
def test_names_are_printed_without_terminal_escapes(form, predict, photos):
    name = photos / "a\x1b[2J\u202e\nb.png"
    (photos / "portrait.png").rename(name)
    for path in (name, photos / "gone\x1b[2J.png"):
        _, out, err = predict(*(["--json"] if form == "json" else []), path)
        printed = (out + err).replace("\n", "")
        assert printed.isprintable() or printed.isascii()
        assert "\x1b" not in printed
        assert r"\x1b[2J" in printed or r"\u001b[2J" in printed


def test_attribute_names_are_printed_without_terminal_escapes(
    model_folder, photos, capsys, tmp_path
):
    folder = tmp_path / "odd"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"] = "\x1b[2J"
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    main(["predict", "--model", str(folder), str(photos / "portrait.png")])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b[2J" in out + err  # as an attribute, or in the line that refuses it


def test_console_that_cannot_print_a_name_gets_escapes(exported, photos):
    (photos / "portrait.png").rename(photos / "한국어.png")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "label2label", "predict", "--model", exported),
            *(photos / "한국어.png", photos / "없음.png"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    assert done.returncode == 1, done.stderr
    assert rb"\ud55c\uad6d\uc5b4.png: 1 face" in done.stdout
    assert rb"\uc5c6\uc74c.png: error: no such file" in done.stderr
    assert b"Traceback" not in done.stderr


def test_missing_model_is_one_line_and_exit_code_2(capsys, photos, tmp_path):
    assert main(["predict", "--model", str(tmp_path / "none"), str(photos)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'none'} does not exist: --model takes a folder, ")
    assert line.endswith("mobilefacenet-tiny")  # the names that ship


def test_real_process_offline_prints_only_json_and_one_warning(exported, photos, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment.pop("LABEL2LABEL_FACE_DETECTOR", None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "label2label", "predict", "--json"),
            *("--model", str(exported), str(photos / "portrait.png")),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["faces"]) == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("warning: cannot get face_detection_yunet")
