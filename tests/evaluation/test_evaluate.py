import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import datasets
import label2label
import numpy as np
import pytest
from label2label.data.batching import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import evaluate_command
from label2label.prediction.loading import load_model

from .conftest import NUM_IMAGES


@pytest.fixture(scope="session")
def result(model_folder, dataset_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "sub" / "noise.json"
    assert evaluate_command(arguments(model_folder, dataset_folder, output=str(output))) == 0
    return json.loads(output.read_text())


def arguments(model, data, **options):
    defaults = {"split": "test", "group": ["race", "gender"], "output": None, "batch_size": 16}
    return Namespace(model=str(model), data=str(data), bootstrap=50, **(defaults | options))


def test_an_attribute_named_by_its_opposite_is_derived(dataset_folder):
    labels = label_array(load_split(str(dataset_folder), "test"), ["Beard", "Wearing_Hat"])
    assert labels[:6, 0].tolist() == [1, 0, 0, 0, 0, 1]
    assert (labels[:, 1] == -100).all()


def test_accuracy_is_that_of_a_plain_loop_over_the_images(result, model_folder, dataset_folder):
    model, processor = load_model(str(model_folder))
    dataset = load_split(str(dataset_folder), "test")
    labels = label_array(dataset, ["Male", "Smiling", "Beard"])
    right = asked = query_right = 0
    for row, label in zip(dataset, labels, strict=True):
        outputs = model(**processor(row["image"], return_tensors="pt"))
        known = label != -100
        right += ((outputs.logits[0].numpy(force=True) > 0) == label)[known].sum()
        query_right += ((outputs.query_logits[0].numpy(force=True) > 0) == label)[known].sum()
        asked += known.sum()
    assert result["num_labels"] == asked
    assert result["accuracy"] == pytest.approx(right / asked, abs=1e-6)
    assert result["query_accuracy"] == pytest.approx(query_right / asked, abs=1e-6)


def test_the_json_says_what_was_measured_on_what(result):
    assert result["num_images"] == NUM_IMAGES
    assert result["model"]["name"] == "tiny"
    parameters = result["model"]["parameters"]
    assert parameters["all"] == parameters["backbone"] + parameters["head"] > 0
    assert result["dataset"] == {"name": "noise", "split": "test"}
    assert result["bootstrap"]["unit"] == "identity"
    assert result["bootstrap"]["num_units"] == 34
    assert set(result["per_attribute"]) == {"Male", "Smiling", "Beard"}
    low, high = result["intervals"]["accuracy"]
    assert low < result["accuracy"] < high
    assert "torch" in result["versions"]


def test_groups_are_reported_with_counts_and_intersections(result):
    assert set(result["groups"]) == {"race", "gender", "race x gender"}
    assert result["groups"]["race"]["per_group"]["Asian"]["num_images"] == 34
    assert result["groups"]["gender"]["num_unknown"] == 1
    assert result["age_adjusted"]["race"]["overall"]["strata"] == {"15-29": 1.0}


def test_the_report_shows_every_figure_and_links_only_to_files_that_exist(
    result, model_folder, dataset_folder, tmp_path, capsys
):
    evaluate_command(arguments(model_folder, dataset_folder, report=str(tmp_path / "report")))
    assert json.loads(capsys.readouterr().out)["accuracy"] == result["accuracy"]
    text = (tmp_path / "report" / "README.md").read_text()
    assert f"{result['accuracy']:.4f}" in text
    assert f"{result['groups']['race']['gap']:.4f}" in text
    figures = [line.split("(")[-1].rstrip(")") for line in text.splitlines() if line[:2] == "!["]
    assert len(figures) == 5
    for figure in figures:
        assert (tmp_path / "report" / figure).stat().st_size > 5_000
        assert (tmp_path / "report" / figure).with_suffix(".svg").exists()


@pytest.mark.slow
def test_two_processes_count_every_image_once(result, model_folder, dataset_folder, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from argparse import Namespace\n"
        "from label2label.evaluation.evaluate import evaluate_command\n"
        "evaluate_command(Namespace(model=sys.argv[1], data=sys.argv[2], split='test',\n"
        "    group=[], output=sys.argv[3], batch_size=8, bootstrap=10))\n"
    )
    output = tmp_path / "two.json"
    source = str(Path(label2label.__file__).parents[1])
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    subprocess.run(
        [sys.executable, "-m", *launch, program, model_folder, dataset_folder, output],
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    two = json.loads(output.read_text())
    assert two["num_images"] == NUM_IMAGES
    assert two["accuracy"] == result["accuracy"]
    assert two["per_attribute"]["Male"]["f1"] == result["per_attribute"]["Male"]["f1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "no split 'train': it has test"),
        ({"group": ["religion"]}, "no group column 'religion'"),
        ({"data": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"model": "/no/such/folder"}, "/no/such/folder does not exist: --model"),
    ],
)
def test_what_is_missing_is_named(model_folder, dataset_folder, options, message):
    options = {"model": model_folder, "data": dataset_folder} | options
    with pytest.raises(UserError, match=message):
        evaluate_command(arguments(**options))


def test_a_folder_that_is_no_dataset_is_refused(model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError):
        evaluate_command(arguments(model_folder, tmp_path))


def write_dataset(folder, rows):
    """A dataset of the given columns beside two gray images."""
    (folder / "data").mkdir()
    dataset = datasets.Dataset.from_dict(rows)
    dataset.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def test_a_dataset_without_images_is_refused(model_folder, tmp_path):
    data = write_dataset(tmp_path, {"Male": [True, False]})
    with pytest.raises(UserError, match="no column 'image'"):
        evaluate_command(arguments(model_folder, data, group=[]))


def test_a_dataset_without_any_of_the_attributes_is_refused(model_folder, tmp_path):
    gray = {"bytes": b"", "path": None}
    data = write_dataset(tmp_path, {"image": [gray], "Bald": [True]})
    with pytest.raises(UserError, match="no label for any of the model's attributes"):
        evaluate_command(arguments(model_folder, data, group=[]))


def test_an_image_that_cannot_be_read_is_named_by_its_row(model_folder, tmp_path):
    rows = {"image": [{"bytes": b"no image", "path": None}], "Male": [True]}
    data = write_dataset(tmp_path, rows)
    with pytest.raises(UserError, match="row 0"):
        evaluate_command(arguments(model_folder, data, group=[]))


def test_an_output_that_exists_is_replaced_whole(model_folder, dataset_folder, tmp_path):
    output = tmp_path / "result.json"
    output.write_text("{" * 100_000)
    evaluate_command(arguments(model_folder, dataset_folder, output=str(output), group=[]))
    assert np.isfinite(json.loads(output.read_text())["accuracy"])
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
