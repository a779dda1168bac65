"""Metrics, groups and gaps, bootstrap intervals, plots and reports for multi-attribute models."""

from pathlib import Path

MULTI_ATTRIBUTE = str(Path(__file__).with_name("multi_attribute.py"))
"""What `evaluate.load` takes to load the metrics, without a network."""
