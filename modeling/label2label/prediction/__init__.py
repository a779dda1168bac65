"""Predict attributes of the faces in photos and videos."""
