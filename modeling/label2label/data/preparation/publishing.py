"""Upload a prepared dataset to the Hub, where its terms allow it."""

from __future__ import annotations

from pathlib import Path

from label2label.data.preparation.reading import read_record
from label2label.errors import UserError, first_line

RIGHT_OPTION = "--i-have-the-right-to-redistribute"


def refuse_redistribution(name: str, terms: str) -> UserError:
    """Error for a dataset whose terms forbid an upload.

    Args:
        name: Name of the dataset.
        terms: What its terms say.

    Returns:
        The error to raise.
    """
    return UserError(
        f"{name} may not be uploaded: {terms} Give {RIGHT_OPTION} if its owners allowed you to"
    )


def push_dataset(
    folder: Path, repo_id: str, *, private: bool = True, right_to_redistribute: bool = False
) -> str:
    """Upload a dataset folder as a Hub dataset repository.

    Args:
        folder: A folder that `prepare_dataset` wrote.
        repo_id: `owner/name` of the repository; it is created where it does not exist.
        private: Whether a new repository is private.
        right_to_redistribute: Whether the caller says to have the right that the terms withhold.

    Returns:
        Address of the repository.

    Raises:
        UserError: If the folder was not prepared by this package, its terms forbid redistribution
            and the right is not claimed, or the upload fails.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    record = read_record(folder)
    description = record["description"]
    title = description["title"]
    if not (description["redistributable"] or right_to_redistribute):
        raise refuse_redistribution(title, description["terms"])
    api = HfApi()
    try:
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=f"{title}, prepared with label2label {record['label2label']}",
        )
    except (HTTPError, HFValidationError) as error:
        raise UserError(
            f"{folder} is prepared but could not be uploaded to {repo_id}: {first_line(error)} "
            "(log in with `hf auth login`, then run the same command again)"
        ) from error
    return str(url)
