"""Evaluate multi-attribute models: metrics, groups, bootstrap, calibration and reports.

In all modules, `probabilities` are (images, attributes) in 0..1; `labels` are (images, attributes):
1 present, 0 absent, -100 unknown and ignored; `weights` are (..., images): how often each image
counts, once by default. Scores keep the leading dimensions of the weights, so that one call with
(resamples, images) counts computes a bootstrap, and are NaN where undefined. `resamples` is the
number of bootstrap resamples.
"""

from pathlib import Path

MULTI_ATTRIBUTE = str(Path(__file__).with_name("metrics.py"))
"""What `evaluate.load` takes to load the metrics, without a network."""


def format_p_value(value: float | None) -> str:
    """Format a p-value, which may be unknown, for every page; a small one is not called zero."""
    if value is None or value != value:  # NaN
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
