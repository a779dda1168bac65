"""The arithmetic of larger training sets, on a case worked out by hand."""

import json

import datasets
import numpy as np
import pytest
from label2label.data.loading import load_split

from tests.training.conftest import dataset_folder  # noqa: F401


def test_hours_and_gigabytes_follow_from_the_measured_rate(
    dataset_folder,  # noqa: F811
    tmp_path,
    load_benchmark,
    capsys,
):
    scaling = load_benchmark("scaling")
    measured = {"images_per_second": {"loop": 100.0, "bare_step": 110.0}}
    (tmp_path / "loader.json").write_text(json.dumps(measured))
    output = tmp_path / "scaling.json"
    arguments = ["--loader", str(tmp_path / "loader.json"), "--data", str(dataset_folder)]
    assert scaling.main([*arguments, "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["decoded_bytes"] == 3 * 140 * 168  # 1.25 and 1.5 times 112
    image = load_split(dataset_folder, "train").cast_column("image", datasets.Image(decode=False))
    encoded = [len(row["image"]["bytes"]) for row in image]
    assert result["encoded_bytes"] == pytest.approx(np.mean(encoded) * 178 * 218 / (32 * 40))
    assert result["celeba"]["hours"] == pytest.approx(162_770 * 14 / 100 / 3600)
    assert result["web"]["hours_on_64"] == pytest.approx(1e8 / 100 / 3600 / 64)
    assert result["web"]["decoded_gigabytes"] == pytest.approx(1e8 * 70_560 / 1e9)
    assert result["web"]["memory_gigabytes"] == pytest.approx(4.8)

    assert scaling.main(["--loader", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
