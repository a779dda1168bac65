"""The model card's metadata: what the Hub filters by, shows beside the text, and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from label2label.hub.card_text import WIDGET
from label2label.hub.emissions import CORES, SOURCE, Emissions

# Identifiers of https://hf.co/metrics among those that the figures have.
_LISTED_METRICS = ("accuracy", "f1")


def card_metadata(
    name: str,
    datasets: Sequence[str],
    figures: Sequence[EvalResult],
    emissions: Emissions | None,
) -> ModelCardData:
    """The metadata of the card of a model that was trained on CelebA.

    Args:
        name: of the model.
        datasets: that it was trained on, CelebA and perhaps more.
        figures: everything that the card publishes.
        emissions: of training, where its logs are there.

    Returns:
        The metadata.
    """
    more: dict[str, Any] = {"widget": WIDGET}
    if emissions:
        more["co2_eq_emissions"] = {
            "emissions": float(f"{emissions.grams:.2g}"),  # grams; an estimate has no more digits
            "source": SOURCE,
            "training_type": "fine-tuning",
            "hardware_used": f"{CORES} CPU cores",
        }
    published = {figure.metric_type for figure in figures}
    return ModelCardData(
        license="other",
        license_name="celeba-non-commercial-research",
        license_link="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["facial-attributes", "multi-label", "label2label", "mobilefacenet", "fairness"],
        datasets=list(datasets),
        metrics=[metric for metric in _LISTED_METRICS if metric in published],
        model_name=name,
        eval_results=list(figures),
        **more,
    )


def plain_metadata(kind: str) -> ModelCardData:
    """The metadata of the card of a model that nothing was measured of.

    Args:
        kind: its `model_type`, `label2label` or `mobilefacenet`.

    Returns:
        The metadata.
    """
    is_backbone = kind == "mobilefacenet"
    return ModelCardData(
        license="other",
        license_name="see-model-card",
        library_name="transformers",
        pipeline_tag="image-feature-extraction" if is_backbone else "image-classification",
        tags=["face", "mobilefacenet"] if is_backbone else ["facial-attributes", "label2label"],
    )
