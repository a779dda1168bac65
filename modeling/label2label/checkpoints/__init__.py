"""The models that ship with the package."""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent


def default_checkpoint() -> str:
    """Folder of the model that ships, for `from_pretrained`."""
    return str(_FOLDER / "celeba-mobilefacenet")


def checkpoint_names() -> list[str]:
    """Names of the models that ship, the default first."""
    default = Path(default_checkpoint()).name
    names = (file.parent.name for file in _FOLDER.glob("*/config.json"))
    return sorted(names, key=lambda name: (name != default, name))


def find_checkpoint(name: str | os.PathLike[str] | None = None) -> str:
    """Finds a model that ships with the package by its name.

    Args:
        name: Of its folder here; or a folder or Hub id, left as it is; or `None` for the default.

    Returns:
        A folder or Hub id.
    """
    if name is None:
        return default_checkpoint()
    shipped = _FOLDER / name
    is_name = os.sep not in str(name) and (shipped / "config.json").is_file()
    return str(shipped if is_name and not Path(name).exists() else name)
