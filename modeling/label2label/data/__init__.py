"""Attribute vocabularies, the one dataset schema, what may be drawn on faces, and batches."""
