"""The dataset card: what a dataset holds, its source, its terms, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from label2label import __version__
from label2label.data.preparation.counts import (
    Counts,
    rows_per_source,
    rows_per_split,
    rows_per_value,
    rows_per_variant,
)
from label2label.data.schema import GROUP_COLUMNS, SPLITS, dataset_features
from label2label.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from datasets.splits import SplitDict

_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ summary }}

## Source and terms

{{ origin }}

{{ terms }}

## How it was made

{{ process }} Made with `{{ program }}` of label2label {{ version }}.

## Fields

{{ fields }}

## Counts

{{ splits }}

{{ variants }}

{{ attributes }}

{{ groups }}

## Known biases and limits

{{ biases }}
"""


@dataclass(frozen=True)
class DatasetDescription:
    """What a dataset card says that the rows do not.

    Args:
        title: Name of the dataset.
        summary: One paragraph.
        origin: Where the images and labels come from, with links.
        terms: What the source's terms allow.
        process: How the rows follow from the source: crops, filters, splits, derived labels.
        biases: Known biases and limits.
        program: The script that made it.
        license: Identifier that the Hub knows; `other` where the terms are the source's own.
        license_name: Name of the terms where `license` is `other`.
        license_link: Where the terms can be read.
        redistributable: Whether the terms allow uploading the images.
        tags: Further tags for the Hub.
    """

    title: str
    summary: str
    origin: str
    terms: str
    process: str
    biases: str
    program: str
    license: str = "other"
    license_name: str | None = None
    license_link: str | None = None
    redistributable: bool = False
    tags: tuple[str, ...] = field(default_factory=tuple)


def write_dataset_card(
    folder: Path,
    description: DatasetDescription,
    vocabulary: Vocabulary,
    counts: Counts,
    fingerprint: str,
) -> None:
    """Write `README.md`, the dataset card that the Hub shows and from which it reads the splits.

    Args:
        folder: The dataset folder, with its shards.
        description: What the card says beside the counts.
        vocabulary: Names the attribute columns.
        counts: Rows by source, split, column and value.
        fingerprint: Digest of how the dataset was made.
    """
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCard, DatasetCardData

    splits = _measure_splits(folder)
    info = DatasetInfo(
        features=dataset_features(vocabulary),
        splits=splits,
        download_size=sum(path.stat().st_size for path in (folder / "data").iterdir()),
        dataset_size=sum(split.num_bytes for split in splits.values()),
    )
    card_data = DatasetCardData(
        language="en",
        license=description.license,
        license_name=description.license_name,
        license_link=description.license_link,
        pretty_name=description.title,
        task_categories=["image-classification"],
        task_ids=["multi-label-image-classification"],
        size_categories=[_size_category(splits.total_num_examples)],
        tags=["facial-attributes", *description.tags],
        configs=[
            {
                "config_name": "default",
                # datasets keeps what it loaded under the folder's name and the card's metadata: in
                # a folder that was prepared anew it would find the rows of before.
                "description": f"made by {description.program} ({fingerprint[:16]})",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in splits
                ],
            }
        ],
    )
    DatasetInfosDict(default=info).to_dataset_card_data(card_data)
    card = DatasetCard.from_template(
        card_data,
        template_str=_TEMPLATE,
        title=description.title,
        summary=description.summary,
        origin=description.origin,
        terms=description.terms,
        process=description.process,
        program=description.program,
        version=__version__,
        fields=_fields(counts),
        splits=_split_table(counts),
        variants=_variant_table(counts),
        attributes=_attribute_table(counts),
        groups=_group_tables(counts),
        biases=description.biases,
    )
    card.save(folder / "README.md")


def _measure_splits(folder: Path) -> SplitDict:
    from datasets.splits import SplitDict, SplitInfo

    splits = SplitDict()
    for split in SPLITS:
        shards = [pq.read_metadata(path) for path in (folder / "data").glob(f"{split}-*.parquet")]
        if shards:
            size = sum(
                shard.row_group(index).total_byte_size
                for shard in shards
                for index in range(shard.num_row_groups)
            )
            splits.add(SplitInfo(split, size, sum(shard.num_rows for shard in shards)))
    return splits


def _size_category(rows: int) -> str:
    for limit, category in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K")):
        if rows < limit:
            return category
    return "100K<n<1M" if rows < 10**6 else "1M<n<10M"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fields(counts: Counts) -> str:
    attributes = [column for column in rows_per_value(counts) if column not in GROUP_COLUMNS]
    names = ", ".join(f"`{attribute}`" for attribute in attributes)
    return (
        "- `image`: the encoded face image.\n"
        f"- {names}: bool; true present, false absent, null unknown.\n"
        "- `identity` (string): the person, null where the source does not tell. No person is in "
        "two splits.\n"
        "- `source` (string): the dataset that the image comes from.\n"
        "- `race`, `gender` (string), `age` (int): groups, null where the source does not tell."
    )


def _split_table(counts: Counts) -> str:
    per_source = rows_per_source(counts)
    sources = dict.fromkeys(source for source, _ in per_source)
    splits = [split for split in SPLITS if split in rows_per_split(counts)]
    rows: list[list[Any]] = [
        [source, *(per_source.get((source, split), 0) for split in splits)] for source in sources
    ]
    return _table(["rows", *splits], rows)


def _variant_table(counts: Counts) -> str:
    variants = rows_per_variant(counts)
    if set(variants) == {""}:
        return ""
    rows: list[list[Any]] = [
        [f"path ending in `#{variant}`" if variant else "as its source has it", number]
        for variant, number in sorted(variants.items())
    ]
    return _table(["image", "rows"], rows)


def _attribute_table(counts: Counts) -> str:
    rows: list[list[Any]] = [
        [column, *(values.get(value, 0) for value in ("true", "false", "null"))]
        for column, values in rows_per_value(counts).items()
        if column not in GROUP_COLUMNS
    ]
    return _table(["attribute", "present", "absent", "unknown"], rows)


def _group_tables(counts: Counts) -> str:
    values = rows_per_value(counts)
    return "\n\n".join(
        _table([column, "rows"], [[value, number] for value, number in values[column].items()])
        for column in GROUP_COLUMNS
    )
