import io
import json
from argparse import Namespace

import datasets
import numpy as np
import onnx
import pytest
from label2label.cli import main
from label2label.data.loading import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import evaluate_command
from label2label.prediction.backends import load_model
from PIL import Image

from .conftest import NUM_IMAGES


@pytest.fixture(scope="session")
def result(model_folder, dataset_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "sub" / "noise.json"
    assert evaluate_command(arguments(model_folder, dataset_folder, output=str(output))) == 0
    return json.loads(output.read_text())


def arguments(model, data, **options):
    defaults = {"split": "test", "group": ["race", "gender"], "batch_size": 16}
    defaults |= dict.fromkeys(("output", "report", "against"))
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


def test_the_report_is_one_page_with_every_figure(
    result, model_folder, dataset_folder, tmp_path, capsys
):
    report = tmp_path / "sub" / "report.html"
    evaluate_command(arguments(model_folder, dataset_folder, report=str(report)))
    assert json.loads(capsys.readouterr().out)["accuracy"] == result["accuracy"]
    page = report.read_text()
    assert f"{result['accuracy']:.4f}" in page
    assert f"{result['groups']['race']['gap']:.4f}" in page
    assert page.count("<img") == 2 + 3  # one by column


@pytest.mark.slow
def test_two_processes_count_every_image_once(
    result, model_folder, dataset_folder, launch_two_processes, tmp_path
):
    output = tmp_path / "two.json"
    arguments = ["--model", model_folder, "--data", dataset_folder, "--output", output]
    # Batches of 60 over 67 images: padding repeats more images than the last batch holds.
    launch_two_processes(
        "-m", "label2label", "evaluate", *arguments, "--batch-size", "60", "--bootstrap", "100"
    )
    two = json.loads(output.read_text())
    assert two["num_images"] == NUM_IMAGES
    assert two["accuracy"] == result["accuracy"]
    assert two["num_labels"] == result["num_labels"]
    for name, scores in two["per_attribute"].items():
        one = result["per_attribute"][name]
        assert scores["f1"] == one["f1"]
        # Ranks and bins hang on the last bit of a float, which batches of another size change.
        for score in ("average_precision", "expected_calibration_error"):
            assert scores[score] == pytest.approx(one[score], abs=0.01)


def test_against_another_model_differences_are_paired(
    model_folder, dataset_folder, tmp_path, capsys
):
    output = tmp_path / "itself.json"
    options = {"against": str(model_folder), "output": str(output)}
    evaluate_command(arguments(model_folder, dataset_folder, **options))
    comparison = json.loads(output.read_text())["comparison"]
    assert comparison["model"]["name"] == "tiny"
    assert comparison["overall"]["accuracy"]["interval"] == [0, 0]
    assert comparison["groups"]["race"]["per_group"]["Asian"]["difference"] == 0
    assert "against tiny" in capsys.readouterr().out


def test_labels_that_the_model_does_not_know_are_listed(model_folder, tmp_path):
    data = write_dataset(tmp_path, gray_images(2) | {"Wearing_Mask": [True, None]})
    output = tmp_path / "masks.json"
    evaluate_command(arguments(model_folder, data, group=[], output=str(output)))
    result = json.loads(output.read_text())
    assert result["unscored_columns"] == ["Wearing_Mask"]
    assert result["missing_attributes"] == ["Smiling", "Beard"]
    assert result["per_attribute"]["Beard"]["accuracy"] is None


@pytest.mark.parametrize(
    ("race", "message"),
    [([None, None], "'race' is empty throughout"), (["a", None], "'race' has one value, 'a'")],
)
def test_a_group_column_without_two_values_is_refused(model_folder, tmp_path, race, message):
    data = write_dataset(tmp_path, gray_images(2) | {"race": race})
    with pytest.raises(UserError, match=message):
        evaluate_command(arguments(model_folder, data, group=["race"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "no split 'train': it has test"),
        ({"group": ["religion"]}, "no column 'religion'"),
        ({"data": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"model": "/no/such/folder"}, "/no/such/folder does not exist: --model"),
    ],
)
def test_what_is_missing_is_named(model_folder, dataset_folder, options, message):
    options = {"model": model_folder, "data": dataset_folder} | options
    with pytest.raises(UserError, match=message):
        evaluate_command(arguments(**options))


@pytest.mark.parametrize(
    ("command", "option"), [("evaluate", "output"), ("evaluate", "report"), ("audit", "output")]
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    command, option, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    # Neither the model nor the data exist: they are not even looked for.
    options = ["--model", "no/model", "--data", "no/data", "--group", "race"]
    for output, message in (("file/a.json", "file is not a folder"), (".", "is a folder")):
        assert main([command, *options, f"--{option}", str(tmp_path / output)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_folder_that_is_no_dataset_is_refused(model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError):
        evaluate_command(arguments(model_folder, tmp_path))


def gray_images(count):
    """Columns of gray images of men."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48), "gray").save(file, "PNG")
    image = {"bytes": file.getvalue(), "path": None}
    return {"image": [image] * count, "Male": [True] * count}


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


@pytest.fixture(scope="module", params=["float", "uint8"])
def onnx_file(request, model_folder, tmp_path_factory):
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import TorchBackend

    backend = TorchBackend.from_pretrained(model_folder)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, uint8_input=request.param == "uint8")
    return path


def evaluate(model, dataset_folder, output):
    arguments = ["evaluate", "--model", model, "--data", dataset_folder, "--output", output]
    assert main([*map(str, arguments), "--bootstrap", "100"]) == 0
    return json.loads(output.read_text())


def test_scores_are_those_of_torch(onnx_file, model_folder, dataset_folder, tmp_path):
    expected = evaluate(model_folder, dataset_folder, tmp_path / "torch.json")
    found = evaluate(onnx_file, dataset_folder, tmp_path / "onnx.json")
    assert found["num_images"] == expected["num_images"]
    for measure in ("accuracy", "balanced_accuracy", "expected_calibration_error"):
        assert found[measure] == pytest.approx(expected[measure], abs=1e-4)
    assert found["model"]["name"] == "model.onnx"
    assert len(found["model"]["weights_sha256"]) == 64
    assert found["model"]["weights_sha256"] != expected["model"]["weights_sha256"]


def test_file_of_another_model_is_one_line(dataset_folder, tmp_path, capsys):
    path = tmp_path / "other.onnx"
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([node], "other", [value], [output])
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    assert main(["evaluate", "--model", str(path), "--data", str(dataset_folder)]) == 2
    error = capsys.readouterr().err
    assert "is not an exported label2label model" in error
    assert error.count("\n") == 1
