"""Dataset cards: contents, source, terms, and known biases of a prepared dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from label2label import __version__
from label2label.data.schema import GROUP_COLUMNS, SPLITS

TEMPLATE = Path(__file__).with_name("card_template.md")

DESCRIPTIONS = Path(__file__).with_name("cards.yaml")

Counts = Counter[tuple[str, str, str, str]]
"""Rows by (source, split, column, value). The column `image` counts all rows, by variant: the part
of the image's path after `#`, empty for an image as its source has it or framed. An attribute's
values are `true`, `false` and `null`; ages are counted by decade."""


@dataclass(frozen=True)
class DatasetDescription:
    """Contents of a dataset card that cannot be computed from the rows."""

    title: str
    summary: str  # one paragraph
    origin: str  # where the images and labels come from, with links
    terms: str  # what the source's terms allow
    process: str  # how the rows were made: framing, filters, splits, derived labels
    biases: str
    program: str  # path of the program that makes the dataset
    license: str = "other"  # identifier of the Hub
    license_name: str | None = None
    license_link: str | None = None
    redistributable: bool = False  # the terms allow uploading the images
    tags: Sequence[str] = ()


def read_description(name: str, **texts: str) -> DatasetDescription:
    """Read a dataset's entry of `cards.yaml`; each `{key}` in it becomes the text of that key."""
    entry = yaml.safe_load(DESCRIPTIONS.read_text(encoding="utf-8"))[name]
    for field, value in entry.items():
        for key, text in texts.items() if isinstance(value, str) else ():
            value = value.replace("{" + key + "}", text)
        entry[field] = value.strip() if isinstance(value, str) else value
    return DatasetDescription(**entry, tags=(name,))


def write_dataset_card(
    folder: Path, description: DatasetDescription, counts: Counts, fingerprint: str
) -> None:
    """Write the dataset card, `README.md`; the Hub shows it and reads the splits from it."""
    sources = sum_counts(counts, "image", by=(0, 1))
    splits = [split for split in SPLITS if any(split in numbers for numbers in sources.values())]
    rows = sum(sum(numbers.values()) for numbers in sources.values())
    columns = dict.fromkeys(key[2] for key in counts)
    values = {name: sum_counts(counts, name, by=(2, 3))[name] for name in columns}
    variants = values.pop("image")
    groups = {column: dict(sorted(values.pop(column, {}).items())) for column in GROUP_COLUMNS}
    # By length, so that "100-109" comes last.
    groups["age"] = dict(sorted(groups["age"].items(), key=lambda item: len(item[0])))
    sizes = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
    card_data = DatasetCardData(
        language="en",
        license=description.license,
        license_name=description.license_name,
        license_link=description.license_link,
        pretty_name=description.title,
        task_categories=["image-classification"],
        task_ids=["multi-label-image-classification"],
        size_categories=[next((name for limit, name in sizes if rows < limit), "1M<n<10M")],
        tags=["facial-attributes", *description.tags],
        configs=[
            {
                "config_name": "default",
                # `datasets` caches rows by folder name and card metadata: without a fingerprint, a
                # folder that is prepared again would give the old rows.
                "description": f"made by {description.program} ({fingerprint[:16]})",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in splits
                ],
            }
        ],
    )
    card = DatasetCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        **asdict(description),
        version=__version__,
        splits=splits,
        sources=sources,
        variants=dict(sorted(variants.items())),
        attributes=values,
        groups=groups,
    )
    card.save(folder / "README.md")


def sum_counts(counts: Counts, column: str, by: tuple[int, int]) -> dict[str, dict[str, int]]:
    """Sum the rows of one column by two fields of the counts' keys (indices `by`, 0 to 3)."""
    sums: dict[str, dict[str, int]] = {}
    for key, number in counts.items():
        if key[2] == column:
            of_first = sums.setdefault(key[by[0]], {})
            of_first[key[by[1]]] = of_first.get(key[by[1]], 0) + number
    return sums
