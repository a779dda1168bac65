"""A prepared dataset as a Hub dataset repository, where its terms allow one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from label2label.errors import UserError
from label2label.hub.refusals import refuse_unsafe_files
from label2label.hub.repository import Repository, check_repo_id, list_folder

PREPARATION_FILE = "preparation.json"

# `source` of a prepared dataset's rows, and what the terms of that set say.
RESTRICTED_SOURCES = {
    "celeba": "CelebA's agreement forbids giving its images to others",
    "kface": "K-FACE is given to the people who signed its agreement, and to nobody else",
    "lfwa": "LFWA's attributes are for non-commercial research and may not be redistributed",
    "utkface": "UTKFace's images are for non-commercial research; their owners keep the rights",
}


def dataset_repository(
    folder: Path, repo_id: str, *, right_to_redistribute: bool = False
) -> Repository:
    """Describe the repository of a dataset.

    Args:
        folder: a folder that a program of datasets_scripts/ wrote.
        repo_id: `owner/name`.
        right_to_redistribute: whether the caller says to have the right that the terms withhold.

    Returns:
        The repository: shards, dataset card and how they were made.

    Raises:
        UserError: the folder holds no prepared dataset, its card or the terms of a source of its
            rows forbid redistribution, or it holds a secret or a pickle.
    """
    repo_id = check_repo_id(repo_id)
    try:
        record = json.loads((folder / PREPARATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no prepared dataset: make one with a program of datasets_scripts/"
        ) from error
    description = record["description"]
    title = description["title"]
    shards = sorted(map(str, (folder / "data").glob("*.parquet")))
    if not shards:
        raise UserError(f"{folder} holds no prepared dataset: its data/ has no Parquet files")
    if not right_to_redistribute:
        if not description["redistributable"]:
            raise refuse_redistribution(title, description["terms"])
        refuse_restricted_sources(title, shards)
    if not (folder / "README.md").is_file():
        raise UserError(f"{folder} has no README.md, the dataset card: prepare the dataset again")
    files = list_folder(folder)
    refuse_unsafe_files(files, data=True)
    return Repository(
        kind="dataset",
        repo_id=repo_id,
        files=files,
        owned=("data/*.parquet",),  # shards of an earlier push would be read as rows of this one
        mark=PREPARATION_FILE,
        message=f"{title}, prepared with label2label {record['label2label']}",
    )


def refuse_redistribution(name: str, terms: str) -> UserError:
    """Error for a dataset whose terms forbid an upload.

    Args:
        name: name of the dataset.
        terms: what its terms say.

    Returns:
        The error to raise.
    """
    return UserError(
        f"{name} may not be uploaded: {terms} Give --i-have-the-right-to-redistribute if its "
        "owners allowed you to"
    )


def refuse_restricted_sources(title: str, shards: list[str]) -> None:
    """Refuse a dataset some of whose rows come from a set that may not be redistributed.

    Args:
        title: name of the dataset.
        shards: its Parquet files.

    Raises:
        UserError: names the source and says what its terms are.
    """
    sources: set[str] = set()
    for shard in shards:
        values = pc.unique(pq.read_table(shard, columns=["source"])["source"])
        sources.update(str(value) for value in values.to_pylist())
    for source in sorted(sources):
        for name, terms in RESTRICTED_SOURCES.items():
            if name in re.split(r"[^a-z0-9]+", source.lower()):
                raise refuse_redistribution(title, f"it holds rows of {source}: {terms}.")
