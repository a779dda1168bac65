"""What the Hub checks in the metadata of a card: types, known identifiers, and the model index.

After hub-docs' `modelcard.md`, `datasetcard.md` and the Spaces configuration reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

# Those of https://hf.co/docs/hub/repositories-licenses that a face model could have.
LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "openrail", "afl-3.0", "gpl-3.0"),
    *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("lgpl-3.0", "unlicense", "unknown", "other"),
)
PIPELINES = (
    *("image-classification", "image-feature-extraction", "image-to-image", "object-detection"),
    *("feature-extraction", "zero-shot-image-classification", "mask-generation", "other"),
)
SDKS = ("gradio", "docker", "static", "streamlit")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
_DATASET_ID = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


def card_errors(content: str, kind: str) -> Iterator[str]:
    """What the Hub would refuse in a card.

    Args:
        content: of README.md.
        kind: model, dataset or space.

    Yields:
        Each error.
    """
    match = re.match(r"^\s*---\r?\n(.*?)\r?\n---\s*(\r?\n|$)", content, re.DOTALL)
    if match is None:
        return  # no metadata is a warning
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        yield f"not YAML: {error}"
        return
    if not isinstance(data, dict):
        yield "metadata must be an object"
        return
    yield from _common_errors(data)
    if kind == "model":
        yield from _model_errors(data)
    elif kind == "space":
        if data.get("sdk") not in SDKS:
            yield f'"sdk" must be one of {SDKS}'
        for key in ("colorFrom", "colorTo"):
            if key in data and data[key] not in COLORS:
                yield f'"{key}" must be one of {COLORS}'
        if len(str(data.get("short_description", ""))) > 60:
            yield '"short_description" length must be less than or equal to 60 characters long'


def card_warnings(content: str) -> list[str]:
    """What the Hub would warn of."""
    return [] if content.lstrip().startswith("---") else ["empty or missing yaml metadata"]


def _common_errors(data: dict[str, Any]) -> Iterator[str]:
    if "license" in data and data["license"] not in LICENSES:
        yield '"license" must be one of the known identifiers'
    if "license_name" in data and not re.fullmatch(r"[a-z0-9-.]+", str(data["license_name"])):
        yield '"license_name" must be lower case letters, digits, dots and dashes'
    if "license_link" in data and not re.match(r"https://|LICENSE", str(data["license_link"])):
        yield '"license_link" must be an address or LICENSE'
    for key in ("tags", "datasets", "metrics", "task_categories", "models"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f'"{key}" must be an array of strings'
    for item in data.get("datasets", []):
        if not _DATASET_ID.fullmatch(item):
            yield f'"datasets" has no dataset id in {item!r}'


def _model_errors(data: dict[str, Any]) -> Iterator[str]:
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINES:
        yield '"pipeline_tag" must be one of the known tasks'
    for entry in data.get("widget", []):
        if not re.match(r"https://", str(entry.get("src", ""))):
            yield '"widget" of an image task needs a src'
    emissions = data.get("co2_eq_emissions")
    if isinstance(emissions, dict):
        if not isinstance(emissions.get("emissions"), int | float):
            yield '"co2_eq_emissions.emissions" must be a number of grams'
        for key in ("source", "training_type", "geographical_location", "hardware_used"):
            if not isinstance(emissions.get(key, ""), str):
                yield f'"co2_eq_emissions.{key}" must be a string'
    for m, model in enumerate(data.get("model-index", [])):
        if not isinstance(model.get("name"), str):
            yield f'"model-index[{m}].name" is required'
        for r, result in enumerate(model.get("results", [])):
            place = f"model-index[{m}].results[{r}]"
            for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                if not isinstance(result.get(part, {}).get(key), str):
                    yield f'"{place}.{part}.{key}" is required'
            for n, metric in enumerate(result.get("metrics") or [{}]):
                value = metric.get("value")
                if not isinstance(metric.get("type"), str) or value is None:
                    yield f'"{place}.metrics[{n}]" needs a type and a value'
                elif isinstance(value, float) and value != value:
                    yield f'"{place}.metrics[{n}].value" is not a number'
