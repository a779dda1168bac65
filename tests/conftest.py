"""What every test shares: caches of its own, no network, and the optional real data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

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
