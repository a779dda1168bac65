"""Verify pairs of LFW photos with the face-recognition backbone: detection, alignment, embedding.

    label2label convert mobilefacenet_scripted.pt runs/backbone
    python benchmarks/lfw_verification.py lfw --model runs/backbone

SOURCE holds `lfw_subset.zip` (`lfw/Person_Name/Person_Name_NNNN.jpg`) and `pairs.csv`
(`image_a,image_b,same`). Each of ten random folds is scored with the cosine threshold that is best
on the other nine. The embedding is the sum of those of the crop and of its mirror image.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import command_line, finish, write_json
from label2label.faces.alignment import align_face, choose_face
from label2label.faces.detection import FaceDetector
from label2label.faces.face import Face
from label2label.models import Label2LabelImageProcessor
from PIL import Image
from tqdm import tqdm
from transformers import AutoModel

FOLDS = 10
BATCH_SIZE = 32


def embed_photos(
    photos: dict[str, Image.Image], model_path: str
) -> tuple[dict[str, np.ndarray], int]:
    """Compute unit-length embeddings of the subjects of LFW's photos, RGB by name.

    Return them by name, float32, (embedding_size,), and the number of photos without a face.
    """
    model = AutoModel.from_pretrained(model_path).eval()
    processor = Label2LabelImageProcessor.from_pretrained(model_path)
    detector = FaceDetector()
    crops, missed = [], 0
    for photo in tqdm(photos.values(), desc="detect and align"):
        pixels = np.asarray(photo)
        faces = detector(pixels)
        missed += not faces
        # The subject is centred, with 45 % of the photo's side.
        box = tuple(share * side for share in (0.28, 0.72) for side in photo.size)
        subject = choose_face(faces, pixels) if faces else Face(box, 0.0)
        crops.append(align_face(pixels, subject, processor.alignment_template))
    embeddings = []
    for start in tqdm(range(0, len(crops), BATCH_SIZE), desc="embed"):
        batch = crops[start : start + BATCH_SIZE]
        pixel_values = processor(batch, return_tensors="pt").pixel_values
        with torch.inference_mode():
            embedding = model(pixel_values).pooler_output
            embedding = embedding + model(pixel_values.flip(-1)).pooler_output
        embeddings.append(torch.nn.functional.normalize(embedding).numpy())
    return dict(zip(photos, np.concatenate(embeddings), strict=True)), missed


def verify_pairs(similarities: np.ndarray, same: np.ndarray) -> tuple[float, float, float]:
    """Compute verification accuracy, each fold's threshold being chosen on the other folds.

    The cosine similarities and whether a pair shows the `same` person are (pairs,). Return mean
    accuracy over the folds, its standard error, and the mean threshold.
    """
    folds = np.random.default_rng(0).permutation(len(same)) % FOLDS
    accuracies, thresholds = [], []
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        candidates = np.sort(similarities[train])
        hits = (similarities[train] >= candidates[:, None]) == same[train]
        threshold = candidates[hits.mean(axis=1).argmax()]
        accuracies.append(((similarities[test] >= threshold) == same[test]).mean())
        thresholds.append(threshold)
    error = np.std(accuracies, ddof=1) / np.sqrt(FOLDS)
    return float(np.mean(accuracies)), float(error), float(np.mean(thresholds))


def verify_lfw(source: Path, model_path: str) -> dict[str, Any]:
    """Measure the verification accuracy of a face encoder on a folder of LFW pairs."""
    pairs = pd.read_csv(source / "pairs.csv")
    with zipfile.ZipFile(source / "lfw_subset.zip") as archive:
        photos = {
            name: Image.open(io.BytesIO(archive.read(f"lfw/{name}"))).convert("RGB")
            for name in sorted({*pairs.image_a, *pairs.image_b})
        }
    embeddings, missed = embed_photos(photos, model_path)
    first, second = (np.stack([*side.map(embeddings)]) for side in (pairs.image_a, pairs.image_b))
    same = (pairs["same"] == 1).to_numpy()
    accuracy, error, threshold = verify_pairs((first * second).sum(axis=1), same)
    return {
        "accuracy": round(accuracy, 4),
        "standard_error": round(error, 4),
        "threshold": round(threshold, 4),
        "num_pairs": len(pairs),
        "num_images": len(photos),
        "num_images_without_face": missed,
        "protocol": "10-fold threshold, cosine, sum of the crop's and its mirror image's embedding",
    }


def main() -> None:
    """Print the results as JSON, and write them to `--output`."""
    parser = command_line(__doc__)
    parser.add_argument("source", type=Path, help="folder with lfw_subset.zip and pairs.csv")
    parser.add_argument("--model", default="runs/backbone", help="converted backbone's folder")
    parser.add_argument("--output", type=Path, default=Path("results/lfw_verification.json"))
    args = parser.parse_args()
    figures = verify_lfw(args.source, args.model)
    write_json(args.output, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    sys.exit(finish(main))
