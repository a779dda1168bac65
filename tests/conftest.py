"""What every test shares: caches of its own, no network, and the optional real data."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

# Set before any library reads them: tests never touch the user's caches, and reach the servers that
# they start whatever the user's Hub and network settings.
for name in list(os.environ):
    if name.startswith(("HF_", "HUGGING_FACE_")) or name == "TRANSFORMERS_OFFLINE":
        del os.environ[name]
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="label2label-tests-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
direct = f"{direct},127.0.0.1,localhost" if direct else "127.0.0.1,localhost"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = direct

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real images and public weights; skip the test if it does not exist."""
    folder = Path(os.environ.get("LABEL2LABEL_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set LABEL2LABEL_SHARED to the folder of real images and weights")
    return folder


@pytest.fixture(scope="session")
def portrait():
    """Return a public-domain portrait with one face, 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook")
    return Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")


def save_tiny_model(folder: Path, attributes: Sequence[str]) -> Path:
    """Save a tiny random model of these attributes."""
    import torch
    from label2label import models

    torch.manual_seed(0)
    config = models.Label2LabelConfig(
        backbone_config={"model_type": "mobilefacenet", "width_multiplier": 0.25},
        hidden_size=16,
        intermediate_size=16,
        initializer_range=1.0,  # so that photos differ in more than the fourth decimal
        id2label=dict(enumerate(attributes)),
        label2id={name: i for i, name in enumerate(attributes)},
    )
    models.Label2LabelForImageClassification(config).save_pretrained(folder)
    models.Label2LabelImageProcessor().save_pretrained(folder)
    return folder
