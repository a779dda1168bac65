"""The models that ship with the package, each a folder here."""

import os
from pathlib import Path

DEFAULT = "mobilefacenet"
_FOLDER = Path(__file__).parent


def default_checkpoint() -> str:
    """Return the folder of the default model, for `from_pretrained`."""
    return str(_FOLDER / DEFAULT)


def checkpoint_names() -> list[str]:
    """Return the names of the models that ship, the default first."""
    names = (file.parent.name for file in _FOLDER.glob("*/config.json"))
    return sorted(names, key=lambda name: (name != DEFAULT, name))


def find_checkpoint(name: str | os.PathLike[str] | None = None) -> str:
    """Find a model that ships with the package by its name.

    Args:
        name: Name of a shipped model; or a folder or Hub id, returned as it is; or None for the
            default model.

    Returns:
        A folder or Hub id.
    """
    if name is None:
        return default_checkpoint()
    shipped = _FOLDER / name
    is_name = os.sep not in str(name) and (shipped / "config.json").is_file()
    return str(shipped if is_name and not Path(name).exists() else name)
