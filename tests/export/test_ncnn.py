"""ncnn's files say what torch says."""

import numpy as np
import pytest

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

import ncnn
from label2label.export.ncnn import NCNN_FILES, export_ncnn


@pytest.fixture(scope="module")
def folder(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ncnn")
    export_ncnn(backend.model, backend.preprocessing, folder)
    return folder


def run(net, pixels):
    """Probabilities of one normalised image."""
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(pixels))
    return np.array(extractor.extract("out0")[1])


def test_probabilities_are_those_of_torch_to_float16(folder, backend, faces):
    net = ncnn.Net()
    param, weights = (str(folder / name) for name in NCNN_FILES)
    assert (net.load_param(param), net.load_model(weights)) == (0, 0)
    expected = backend.predict(faces[:8])
    found = np.stack([run(net, pixels) for pixels in backend.preprocessing.normalize(faces[:8])])
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    # A guess near zero may fall to the other side, and change its word: few do.
    assert np.median(np.abs(found - expected)) < 2e-3
    assert np.abs(found - expected).mean() < 1e-2


def test_only_the_two_files_are_written(folder):
    assert sorted(file.name for file in folder.iterdir()) == sorted(NCNN_FILES)
