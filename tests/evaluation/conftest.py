import os
import subprocess
import sys
from pathlib import Path

import datasets
import label2label
import numpy as np
import pytest
import torch
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
    MobileFaceNetConfig,
)
from PIL import Image

ATTRIBUTES = ["Male", "Smiling", "Beard"]
NUM_IMAGES = 67


def save_tiny_model(folder, names, **settings):
    """Save a tiny random model of these attributes, with a processor of these settings."""
    torch.manual_seed(0)
    backbone = MobileFaceNetConfig(stem_channels=8, stages=[[2, 8, 1, 2]], feature_channels=16)
    config = Label2LabelConfig(
        backbone_config=backbone,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    Label2LabelForImageClassification(config).save_pretrained(folder)
    Label2LabelImageProcessor(**settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A tiny random model of three attributes with its processor."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", ATTRIBUTES)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """Write 67 noise images: women of other races in the second half, every third Smiling null."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (NUM_IMAGES, 48, 48, 3), dtype=np.uint8)
    rows = range(NUM_IMAGES)
    dataset = datasets.Dataset.from_dict(
        {
            "image": [Image.fromarray(image) for image in pixels],
            "Male": [i < 33 for i in rows],
            "Smiling": [None if i % 3 == 0 else i % 2 == 0 for i in rows],
            "No_Beard": [i % 5 > 0 for i in rows],
            "identity": [str(i // 2) for i in rows],
            "race": ["White" if i < 33 else "Asian" for i in rows],
            "gender": [None if i == 0 else "Male" if i < 33 else "Female" for i in rows],
            "age": [20 + i % 2 for i in rows],
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                **dict.fromkeys(["Male", "Smiling", "No_Beard"], datasets.Value("bool")),
                **dict.fromkeys(["identity", "race", "gender"], datasets.Value("string")),
                "age": datasets.Value("int32"),
            }
        ),
    )
    folder = tmp_path_factory.mktemp("datasets") / "noise"
    (folder / "data").mkdir(parents=True)
    dataset.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def launch_two_processes():
    """Run a program in two processes over gloo and return its output."""

    def launch(*program):
        # --multi_gpu makes accelerate start several processes; with --cpu it would start one.
        options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        options += ["--main_process_port", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "accelerate.commands.launch", *options, *map(str, program)],
            env=os.environ
            | {
                "ACCELERATE_USE_CPU": "true",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(label2label.__file__).parents[1]),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return launch
