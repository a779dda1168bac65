"""Metrics, groups and gaps, bootstrap intervals, plots and reports for multi-attribute models."""
