"""One of our models on photos from standard input, as the peers' programs: started by `photo.py`.

Each photo is a line `WIDTH HEIGHT`, then the bytes of 8-bit RGB; each answer is a line of JSON.
"""

import json
import sys

import cv2
import numpy as np
from label2label.prediction.backends import load_backend
from label2label.prediction.predictor import AttributePredictor

cv2.setNumThreads(1)
predictor = AttributePredictor(load_backend(sys.argv[1], threads=1), threads=1)
while line := sys.stdin.buffer.readline():
    width, height = map(int, line.split())
    pixels = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8)
    print(json.dumps(predictor(pixels.reshape(height, width, 3))), flush=True)
