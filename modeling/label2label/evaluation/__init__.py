"""Metrics, groups and gaps, bootstrap intervals, calibration and reports of multi-attribute models.

Throughout, `probabilities` are (images, attributes) in 0..1; `labels` are (images, attributes): 1
present, 0 absent, -100 unknown, which never counts; `weights` are (..., images): how often each
image counts, once by default. Scores keep the leading shape of the weights, so that a bootstrap is
one call with (resamples, images) counts, and are NaN where they are undefined.
"""

from pathlib import Path

MULTI_ATTRIBUTE = str(Path(__file__).with_name("metrics.py"))
"""What `evaluate.load` takes to load the metrics, without a network."""
