"""The demo as a Hub Space."""

from __future__ import annotations

from pathlib import Path

import yaml

import label2label
from label2label.errors import UserError
from label2label.hub.refusals import refuse_unsafe_files
from label2label.hub.repository import Repository, check_repo_id, list_folder


def default_space() -> Path:
    """The folder of the demo in a checkout of the project: `spaces_app`."""
    return Path(label2label.__file__).parents[2] / "spaces_app"


def space_repository(folder: Path, repo_id: str) -> Repository:
    """Describe the repository of a Space.

    Args:
        folder: holds `README.md` with the Space's metadata, and the app that it names.
        repo_id: `owner/name`.

    Returns:
        The repository, the folder as it stands.

    Raises:
        UserError: the folder is no Space, or holds a secret, a pickle, data or an image of a
            restricted set.
    """
    from huggingface_hub import SpaceCard

    repo_id = check_repo_id(repo_id)
    card = folder / "README.md"
    if not card.is_file():
        raise UserError(f"{folder} holds no Space: it has no README.md; give its folder as --space")
    try:
        data = SpaceCard.load(card).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{card}: its metadata cannot be read: {error}") from error
    sdk, app = data.get("sdk"), data.get("app_file", "app.py")
    if not sdk:
        raise UserError(f"{card} names no sdk in its metadata: a Gradio Space has `sdk: gradio`")
    files = list_folder(folder)
    if sdk == "gradio" and app not in files:
        raise UserError(f"{folder} has no {app}, which README.md names as the Space's app")
    refuse_unsafe_files(files)
    return Repository(
        kind="space",
        repo_id=repo_id,
        files=files,
        owned=("*.py",),
        mark=app if sdk == "gradio" else "README.md",
        message=f"The demo of label2label {label2label.__version__}",
        sdk=sdk,
    )
