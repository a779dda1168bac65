"""The converted backbone recognises people: detection, alignment and embedding work together."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from label2label.cli import main
from label2label.faces import detection


@pytest.fixture(scope="module")
def benchmark_module():
    """The benchmark's own code."""
    path = Path(__file__).parents[2] / "benchmarks" / "lfw_verification.py"
    sys.path.insert(0, str(path.parent))  # as a program finds those beside it
    spec = importlib.util.spec_from_file_location("lfw_verification", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_threshold_is_not_chosen_on_the_fold_that_it_judges(benchmark_module):
    rng = np.random.default_rng(1)
    same = rng.random(600) < 0.5
    separable = np.where(same, 0.6, 0.1) + rng.normal(0, 0.05, 600)
    accuracy, _, threshold = benchmark_module.verify_pairs(separable, same)
    assert accuracy == pytest.approx(1.0, abs=0.01)
    assert 0.2 < threshold < 0.6
    # Without any signal, a threshold that saw its fold would score above chance.
    accuracy, error, _ = benchmark_module.verify_pairs(rng.random(600), same)
    assert abs(accuracy - 0.5) < 0.08
    assert error > 0


@pytest.mark.slow
def test_backbone_verifies_98_percent_of_lfw_pairs(benchmark_module, shared, tmp_path, monkeypatch):
    weights = shared / "weights"
    monkeypatch.setenv(detection.DETECTOR_VARIABLE, str(weights / detection.DETECTOR_FILE))
    backbone = str(tmp_path / "backbone")
    assert main(["convert", str(weights / "mobilefacenet_ms1m_relu6.pt"), backbone]) == 0
    figures = benchmark_module.verify_lfw(shared / "data" / "lfw", backbone)
    print(f"LFW verification: {figures['accuracy']:.2%} of {figures['num_pairs']} pairs")
    assert figures["num_pairs"] == 600
    assert figures["accuracy"] >= 0.98
