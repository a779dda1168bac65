"""Measure where the five landmarks of training faces lie in the model's crop.

    python datasets_scripts/celeba.py --source CELEBA --as-is --output data/celeba-as-is
    python benchmarks/alignment_template.py --data data/celeba-as-is

The means are the image processor's `alignment_template`: photos aligned to it look like CelebA's
own aligned images.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from common import command_line, finish
from label2label.data.loading import load_split
from label2label.errors import UserError
from label2label.faces.detection import FaceDetector
from label2label.models import Label2LabelImageProcessor
from tqdm import tqdm


def main() -> None:
    """Print the template as JSON."""
    parser = command_line(__doc__)
    parser.add_argument("--data", required=True, metavar="DIR", help="images as they are")
    parser.add_argument("--count", type=int, default=600, help="images to measure")
    args = parser.parse_args()
    rows = load_split(args.data, "train").shuffle(seed=0)
    images = [row["image"] for row in rows.select(range(min(args.count, len(rows))))]
    size = np.array(images[0].size)
    if len({image.size for image in images}) != 1:
        raise UserError(f"the images of {args.data} have several sizes")
    detector = FaceDetector()
    found = [detector(np.asarray(image.convert("RGB"))) for image in tqdm(images, unit="image")]
    points = np.array([f[0].landmarks for f in found if len(f) == 1 and f[0].landmarks is not None])
    if not len(points):
        raise UserError("needs images with one face each that YuNet finds")
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
