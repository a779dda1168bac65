"""Attributes of the people in photos."""
