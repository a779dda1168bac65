"""The arithmetic of larger training sets, on a case worked out by hand."""

import json

import pytest

from tests.training.conftest import dataset_folder  # noqa: F401


def test_hours_and_gigabytes_follow_from_the_measured_rate(
    dataset_folder,  # noqa: F811
    tmp_path,
    load_benchmark,
    capsys,
):
    scaling = load_benchmark("scaling")
    history = [{"step": 100, "seconds": 64.0}, {"step": 200, "seconds": 32.0}]
    history.append({"step": 300, "seconds": 16.0})
    (tmp_path / "history.json").write_text(json.dumps(history))
    output = tmp_path / "scaling.json"
    arguments = ["--history", str(tmp_path / "history.json"), "--data", str(dataset_folder)]
    assert scaling.main([*arguments, "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["images_per_second"] == 100  # 100 batches of 32 in 32 seconds
    assert result["decoded_bytes"] == 3 * 40 * 32
    assert result["celeba"]["hours"] == pytest.approx(162_770 * 14 / 100 / 3600)
    assert result["web"]["hours_on_64"] == pytest.approx(1e8 / 100 / 3600 / 64)
    assert result["web"]["decoded_gigabytes"] == pytest.approx(1e8 * 3840 / 1e9)
    assert result["web"]["memory_gigabytes"] == pytest.approx(4.8)

    assert scaling.main(["--history", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
