"""Attribute vocabularies, the one dataset schema, and how datasets are prepared and read."""
