"""What every test shares: caches of its own, no network, and the optional real data."""

import os
import tempfile
from pathlib import Path

import pytest

# Before any library reads them: nothing a test downloads or caches is the user's.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="label2label-tests-")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real images and public weights; tests that ask for it skip where there is none."""
    folder = Path(os.environ.get("LABEL2LABEL_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set LABEL2LABEL_SHARED to the folder of real images and weights")
    return folder
