"""What the Hub rejects in a card's metadata, after hub-docs' references of cards and Spaces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

LICENSES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "unknown", "other")
PIPELINES = ("image-classification", "image-feature-extraction", "feature-extraction", "other")
SDKS = ("gradio", "docker", "static")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


def card_errors(content: str, kind: str) -> Iterator[str]:
    """Yield what the Hub rejects in the text of a README.md; `kind` is model, dataset or space."""
    match = re.match(r"^\s*---\r?\n(.*?)\r?\n---\s*(\r?\n|$)", content, re.DOTALL)
    if match is None:
        return
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        yield f"not YAML: {error}"
        return
    if not isinstance(data, dict):
        yield "metadata must be an object"
        return
    allowed = {"license": LICENSES}
    if kind == "model":
        allowed["pipeline_tag"] = PIPELINES
    elif kind == "space":
        allowed |= {"sdk": SDKS, "colorFrom": COLORS, "colorTo": COLORS}
    for key, values in allowed.items():
        if data.get(key, values[0]) not in values:
            yield f'"{key}" must be one of the known identifiers'
    if not re.fullmatch(r"[a-z0-9-.]+", str(data.get("license_name", "x"))):
        yield '"license_name" must be lower case letters, digits, dots and dashes'
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f'"{key}" must be an array of strings'
    if len(str(data.get("short_description", ""))) > 60:
        yield '"short_description" must be at most 60 characters long'
    for model in data.get("model-index", []):
        for result in model.get("results", []):
            yield from _result_errors(result)


def _result_errors(result: dict[str, Any]) -> Iterator[str]:
    for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
        if not isinstance(result.get(part, {}).get(key), str):
            yield f'"{part}.{key}" is required in "model-index"'
    for metric in result.get("metrics") or [{}]:
        value = metric.get("value")
        if not isinstance(metric.get("type"), str) or value is None or value != value:
            yield '"model-index": a metric needs a type and a value'
