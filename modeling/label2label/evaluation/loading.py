"""Load a prepared dataset's split, with one clear line for everything that can be wrong with it."""

from pathlib import Path

from datasets import Dataset, get_dataset_split_names, load_dataset

from label2label.errors import UserError


def load_split(data: str, split: str) -> Dataset:
    """Load one split of a prepared dataset.

    Args:
        data: a folder that `datasets_scripts/` wrote, or a Hub id.
        split: its name.

    Returns:
        The split.

    Raises:
        UserError: where there is no such dataset or split, or it cannot be read.
    """
    folder = Path(data)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--data {data} is a file: give the folder that datasets_scripts/ wrote")
    if not folder.exists() and (folder.is_absolute() or data.count("/") != 1):
        raise UserError(f"--data {data} does not exist: give a prepared dataset's folder or Hub id")
    try:
        splits = get_dataset_split_names(data)
        if split not in splits:
            raise UserError(f"{data} has no split {split!r}: it has {', '.join(splits)}")
        return load_dataset(data, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{data} is no prepared dataset ({reason}): make one with a script of datasets_scripts/"
        ) from error
