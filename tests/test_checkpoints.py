"""Models that ship are found by their names."""

from pathlib import Path

import pytest
from label2label.checkpoints import default_checkpoint, find_checkpoint
from label2label.errors import UserError
from label2label.prediction.backends import load_backend, load_model


def test_shipped_models_are_found_by_name_and_others_are_left_alone(tmp_path, monkeypatch):
    name = Path(default_checkpoint()).name
    assert find_checkpoint() == find_checkpoint(name) == default_checkpoint()
    for other in ("user/model", "runs/celeba/best", str(tmp_path), "no-such-model", ".."):
        assert find_checkpoint(other) == other
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert find_checkpoint(name) == name  # a folder of the user's own comes first


def test_loaders_take_names():
    name = Path(default_checkpoint()).name
    model, _ = load_model(name)
    assert load_backend(name).preprocessing.attributes == list(model.config.id2label.values())
    with pytest.raises(UserError, match=r"no-such-model does not exist: .* one of mobilefacenet, "):
        load_model("no-such-model")
