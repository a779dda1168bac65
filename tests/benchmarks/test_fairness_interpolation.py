"""Weights between two models: the ends are the models themselves."""

import json
import shutil

import pytest
import torch
from label2label import Label2LabelForImageClassification
from label2label.data.batching import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.metrics import mean_accuracy
from label2label.prediction.backends import load_model
from label2label.prediction.labelled import predict_dataset


@pytest.fixture
def after(shifted_faces, tmp_path):
    """Another model beside the first, of the same shape."""
    torch.manual_seed(1)
    shutil.copytree(tmp_path / "model", tmp_path / "after")
    config = Label2LabelForImageClassification.config_class.from_pretrained(tmp_path / "model")
    Label2LabelForImageClassification(config).save_pretrained(tmp_path / "after")
    return tmp_path / "after"


def test_weights_lie_between_those_of_the_ends(load_benchmark, tmp_path, after):
    interpolate = load_benchmark("fairness_interpolation").interpolate
    (model, _), (other, _) = load_model(str(tmp_path / "model")), load_model(str(after))
    first = {k: v.clone() for k, v in model.state_dict().items()}
    second = other.state_dict()
    interpolate(model, first, second, 0.25)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * first[name] + 0.25 * second[name]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    second = {**second, "more": torch.zeros(1)}
    with pytest.raises(UserError, match="differ in shape"):
        interpolate(model, first, second, 0.5)


def test_scores_at_the_ends_are_the_models(load_benchmark, tmp_path, shifted_faces, after):
    benchmark = load_benchmark("fairness_interpolation")
    output = tmp_path / "out" / "interpolation.json"
    options = ["--before", str(tmp_path / "model"), "--after", str(after), *shifted_faces]
    assert benchmark.main([*options, "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert [point["share"] for point in result["points"]] == [0, 0.25, 0.5, 0.75, 1]
    assert output.with_suffix(".svg").is_file()
    model, processor = load_model(str(after))
    names = list(model.config.label2id)
    dataset = load_split(shifted_faces[3], "validation")
    dataset = dataset.filter(lambda row: row["race"] == "Asian")
    probabilities, _ = predict_dataset(benchmark.Accelerator(cpu=True), model, processor, dataset)
    expected = float(mean_accuracy(probabilities, label_array(dataset, names)))
    assert result["points"][-1]["shifted"]["value"] == pytest.approx(expected, abs=1e-6)
    assert result["num_images"]["shifted"] == len(dataset)


def test_a_race_that_is_not_there_is_one_line(load_benchmark, tmp_path, shifted_faces, capsys):
    benchmark = load_benchmark("fairness_interpolation")
    model = str(tmp_path / "model")
    options = ["--before", model, "--after", model, *shifted_faces, "--shifted", "Martian"]
    assert benchmark.main([*options, "--output", str(tmp_path / "out.json")]) == 2
    assert "no validation image of race Martian" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
