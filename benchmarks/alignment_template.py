"""Measure where the five landmarks of training faces lie in the model's crop.

    python benchmarks/alignment_template.py img_align_celeba.zip

The means are the image processor's `alignment_template`: photos aligned to it look like CelebA's
own aligned images. With `list_eval_partition.txt` beside the archive, only train images count.
"""

from __future__ import annotations

import io
import json
import random
import sys
import zipfile
from pathlib import Path

import numpy as np
from common import command_line, finish
from label2label.errors import UserError
from label2label.faces.detection import FaceDetector
from label2label.models import Label2LabelImageProcessor
from PIL import Image
from tqdm import tqdm


def find_landmarks(archive: zipfile.ZipFile, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the landmarks of images with one face.

    Returns:
        (faces, 5, 2) of [x, y] in pixels of the image, and the images' common width and height.
    """
    detector, landmarks, sizes = FaceDetector(), [], set()
    for name in tqdm(names, unit="image"):
        image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
        sizes.add(image.size)
        faces = detector(np.asarray(image))
        if len(faces) == 1 and faces[0].landmarks is not None:
            landmarks.append(faces[0].landmarks)
    if not landmarks or len(sizes) != 1:
        raise UserError("needs images of one size, with one face each that YuNet finds")
    return np.array(landmarks), np.array(sizes.pop())


def main() -> None:
    """Print the template as JSON."""
    parser = command_line(__doc__)
    parser.add_argument("source", type=Path, help="zip of aligned images")
    parser.add_argument("--count", type=int, default=600, help="images to measure")
    args = parser.parse_args()
    partition = args.source.parent / "list_eval_partition.txt"
    lines = partition.read_text().splitlines() if partition.is_file() else []
    train = {line.split()[0] for line in lines if line.endswith(" 0")}
    if not zipfile.is_zipfile(args.source):
        raise UserError(f"{args.source} is not a zip archive")
    with zipfile.ZipFile(args.source) as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")]
        names = [n for n in names if not train or Path(n).name in train]
        names = random.Random(0).sample(names, min(args.count, len(names)))
        points, size = find_landmarks(archive, names)
    # As the processor does: resize by the shorter side, crop the centre.
    processor = Label2LabelImageProcessor()
    resized = (processor.size["shortest_edge"] / size.min() * size).astype(int)
    offset = (resized - processor.crop_size["height"]) // 2
    template = {
        "image_size": size.tolist(),
        "mean": points.mean(axis=0).round(2).tolist(),
        "std": points.std(axis=0).round(2).tolist(),
        "alignment_template": (points.mean(axis=0) * resized / size - offset).round(2).tolist(),
        "num_faces": len(points),
    }
    print(json.dumps(template, indent=2))


if __name__ == "__main__":
    sys.exit(finish(main))
