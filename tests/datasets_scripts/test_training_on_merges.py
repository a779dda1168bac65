"""From raw files to a trained model: sources that label different attributes learn side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from label2label import Label2LabelForImageClassification
from label2label.checkpoints import default_checkpoint
from label2label.cli import main
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.faces.detection import FaceDetector
from preparation.card import DatasetDescription
from preparation.drawing import MASK_KINDS, draw_mask
from preparation.framing import decode_image, encode_image
from preparation.program import split_by_hash
from preparation.writing import write_dataset

from .conftest import Run, read_zip

pytestmark = pytest.mark.slow

TINY = (
    "backbone_config={model_type: mobilefacenet, stem_channels: 8, stages: [[2, 8, 1, 2]],"
    " feature_channels: 16}",
    "model={hidden_size: 16, intermediate_size: 16, num_attention_heads: 2}",
)


@pytest.fixture
def celeba(shared: Path, tmp_path: Path, run: Run) -> Path:
    """Every 50th image of CelebA, 176 in all, prepared."""
    official, source = shared / "data/celeba", tmp_path / "celeba-source"
    images = read_zip(official / "img_align_celeba.zip", step=50)
    (source / "img_align_celeba").mkdir(parents=True)
    for name, data in images.items():
        (source / "img_align_celeba" / name).write_bytes(data)
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"):
        lines = (official / name).read_text().splitlines()
        kept = [line for line in lines if line.split()[0] in images]
        header = [str(len(kept)), lines[1]] if name == "list_attr_celeba.txt" else []
        (source / name).write_text("\n".join([*header, *kept]) + "\n")
    assert run("celeba", "--source", source, "--output", tmp_path / "celeba") == 0
    return tmp_path / "celeba"


@pytest.fixture
def masks(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """224 faces of UTKFace, on every second of which a mask is drawn; nothing else is labelled."""
    detector_file = shared / "weights/face_detection_yunet_2026may.onnx"
    monkeypatch.setenv("LABEL2LABEL_FACE_DETECTOR", str(detector_file))
    detector = FaceDetector()
    faces, masked = {}, {}
    for number, (name, data) in enumerate(
        read_zip(shared / "data/utkface/crop_part1.zip", step=35).items()
    ):
        image = decode_image(data)
        found = detector(image) if number % 2 else []
        if found:
            generator = np.random.default_rng(number)
            image = draw_mask(image, found[0].landmarks, MASK_KINDS[number // 2 % 2], generator)
        faces[name], masked[name] = encode_image(image), bool(found)
    write_dataset(
        [
            Sample(name, split_by_hash(name), {"Wearing_Mask": masked[name]}, source="masks")
            for name in faces
        ],
        lambda sample: [(sample, faces[sample.key])],
        get_vocabulary("korean-11"),
        DatasetDescription("Masks", "", "", "", "", "", program="test"),
        tmp_path / "masks",
    )
    return tmp_path / "masks"


def test_celeba_without_mask_labels_and_masks_with_nothing_else_are_both_learnt(
    celeba: Path, masks: Path, tmp_path: Path, run: Run
):
    merged, model = tmp_path / "merged", tmp_path / "run"
    assert run("merge", celeba, masks, "--vocabulary", "union", "--output", merged) == 0
    whole = Label2LabelForImageClassification.from_pretrained(default_checkpoint())
    whole.label2label.backbone.save_pretrained(tmp_path / "backbone")
    settings = [
        "vocabulary=union",
        f"backbone={tmp_path / 'backbone'}",
        "model={hidden_size: 32, intermediate_size: 32, num_attention_heads: 2}",
        "epochs=3",
        "batch_size=8",
        "backbone_learning_rate=0.0001",
        "head_learning_rate=0.004",
        "ema=0.9",
        "objective=image-mean",
        "erasing=0",
        "workers=0",
        "seed=1",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", "--data", str(merged), "--output", str(model), *options]) == 0
    figures = tmp_path / "figures.json"
    data = ["--model", str(model / "best"), "--data", str(merged), "--output", str(figures)]
    assert main(["evaluate", *data, "--bootstrap", "100"]) == 0
    per_attribute = json.loads(figures.read_text())["per_attribute"]
    precision = {name: values["average_precision"] for name, values in per_attribute.items()}
    # By chance they would be the attributes' shares of the test images: 0.5 and about 0.4.
    assert precision["Wearing_Mask"] > 0.8
    assert precision["Male"] > 0.75


def test_one_recipe_trains_on_the_merge_of_celeba_and_utkface(
    celeba: Path, shared: Path, tmp_path: Path, run: Run
):
    source = tmp_path / "utkface-source/crop_part1"
    source.mkdir(parents=True)
    for name, data in read_zip(shared / "data/utkface/crop_part1.zip", step=60).items():
        (source / name).write_bytes(data)
    assert run("utkface", "--source", source.parent, "--output", tmp_path / "utkface") == 0
    inputs = (celeba, tmp_path / "utkface", "--vocabulary", "celeba-40")
    assert run("merge", *inputs, "--output", tmp_path / "merged") == 0
    settings = ("backbone=null", *TINY, "epochs=1", "workers=0", "mixed_precision='no'")
    options = [word for setting in settings for word in ("--set", setting)]
    folders = ["--data", str(tmp_path / "merged"), "--output", str(tmp_path / "run")]
    assert main(["train", "--recipe", "merged", *folders, *options]) == 0
    config = json.loads((tmp_path / "run/best/config.json").read_text())
    assert len(config["id2label"]) == 40
