"""What programs get: a photo's faces with every attribute by its name."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import gradio as gr
import numpy as np
from analysis import Analyser
from photos import PhotoError
from texts import say

# Shown on the page.
EXAMPLE = """from gradio_client import Client, handle_file

space = Client("USER/SPACE")
answer = space.predict(
    handle_file("photo.jpg"), model="", known={"Eyeglasses": True}, maps=False,
    api_name="/predict",
)
for face in answer["faces"]:
    print(face["box"], face["attributes"]["Smiling"])

print(space.predict(api_name="/models"))"""
PLACE = ("box", "score", "size", "roll", "warnings")  # keys of a face in a response


def predict_photo(
    analyser: Analyser, photo: bytes | None, model: str, known: Mapping[str, bool], maps: bool
) -> dict[str, Any]:
    """Predict the attributes of all faces in a photo.

    `model` is a key of `/models`, empty for the first; `known` are attributes of all faces.

    Returns:
        `model`, its key; `faces`: `box`, `score`, `size`, `roll` and `warnings` as in
        `AttributePredictor`, and `attributes` by name: `probability`, 0 to 1, `present`, and, if
        requested and available, `map`, rows of 0 to 1 over the crop; and `notes` in English.

    Raises:
        gr.Error: The photo or an argument is invalid.
    """
    if not isinstance(known, Mapping):
        raise gr.Error('What is known must be an object: {"Male": true}.')
    try:
        offered = analyser.find_model(model)
        asked = offered.preprocessing
        for name, value in known.items():
            if name not in asked.attributes:
                raise gr.Error(f"The model has no attribute {name}.")
            if not isinstance(value, bool):
                raise gr.Error(f"What is known of {name} must be true or false.")
        result = analyser.analyse(photo or b"", [offered.key], known)
    except PhotoError as error:
        raise gr.Error(say("en", f"error.{error.code}", **error.values)) from error
    faces = []
    for face in result["faces"]:
        prediction = face["predictions"][offered.key]
        attributes: dict[str, dict[str, Any]] = {
            name: {"probability": probability, "present": present}
            for name, probability, present in zip(
                asked.attributes, prediction["probabilities"], prediction["present"], strict=True
            )
        }
        if maps and prediction["maps"]:
            for entry, grid in zip(
                attributes.values(), decode_maps(prediction["maps"]), strict=True
            ):
                entry["map"] = grid
        faces.append({**{key: face[key] for key in PLACE}, "attributes": attributes})
    notes = [say("en", f"note.{note['code']}", **note["values"]) for note in result["notes"]]
    return {"model": offered.key, "faces": faces, "notes": notes}


def decode_maps(maps: Mapping[str, Any]) -> list[list[list[float]]]:
    """Decode the output of `analysis.encode_maps` to one grid of 0 to 1 per attribute."""
    data = np.frombuffer(base64.b64decode(maps["data"]), np.uint8) / 255
    return data.reshape(-1, maps["rows"], maps["columns"]).round(3).tolist()
