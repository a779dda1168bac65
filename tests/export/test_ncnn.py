"""ncnn's files say what torch says."""

import numpy as np
import pytest
from label2label.errors import UserError

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

from label2label.export.ncnn import NCNN_FILES, NcnnModel, export_ncnn


@pytest.fixture(scope="module")
def folder(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ncnn")
    export_ncnn(backend.model, backend.preprocessing, folder)
    return folder


@pytest.mark.parametrize("threads", [1, 2])
def test_probabilities_are_those_of_torch_to_float16(folder, backend, faces, threads):
    model = NcnnModel(folder, threads)
    expected = backend.predict(faces[:8])
    found = np.stack([model.predict(x) for x in backend.preprocessing.normalize(faces[:8])])
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    # A guess near zero may fall to the other side, and change its word: few do.
    assert np.median(np.abs(found - expected)) < 2e-3
    assert np.abs(found - expected).mean() < 1e-2


def test_only_the_two_files_are_written(folder):
    assert sorted(file.name for file in folder.iterdir()) == sorted(NCNN_FILES)


def test_missing_and_damaged_files_are_errors(folder, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        NcnnModel(tmp_path)
    for name in NCNN_FILES:
        (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(UserError, match="no model that ncnn can run"):
        NcnnModel(tmp_path)
