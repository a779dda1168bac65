"""The model that ships with the package."""

from pathlib import Path


def default_checkpoint() -> str:
    """Folder of the model that ships, for `from_pretrained`."""
    return str(Path(__file__).parent / "celeba-mobilefacenet")
