"""A model from a recipe: the head's config over a pretrained or a new backbone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoBackbone, AutoConfig

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError, first_line
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
)
from label2label.models.modeling_mobilefacenet import MobileFaceNetBackbone
from label2label.prediction.backends import load_model
from label2label.training.derivation import absorb_temperature, derive_model
from label2label.training.narrowing import narrow_backbone
from label2label.training.recipe import Recipe


def build_model(
    recipe: Recipe, attributes: Sequence[str]
) -> tuple[Label2LabelForImageClassification, Label2LabelImageProcessor]:
    """
    Builds the model that a recipe trains.

    Args:
        recipe: Gives `backbone`, `backbone_config` and `model`, or `init_from`.
        attributes: Names of the attributes, in order.

    Returns:
        The model, on the CPU, the backbone's weights loaded where the recipe names some; and its
        image processor: where the recipe goes on from a model, that one's, with these attributes
        and without its thresholds.

    Raises:
        UserError: If the backbone cannot be loaded or the config is not valid.
    """
    known = {field.name for field in dataclasses.fields(Label2LabelConfig)}
    if unknown := sorted(set(recipe.model) - known):
        raise UserError(f"model: unknown key {', '.join(unknown)}")
    if recipe.init_from:
        return _continue_model(recipe, attributes)
    backbone = load_backbone(recipe.backbone) if recipe.backbone else None
    if backbone is not None and recipe.backbone_config:
        backbone = _change_backbone(backbone, recipe.backbone_config)
    try:
        config = Label2LabelConfig(
            backbone_config=recipe.backbone_config if backbone is None else backbone.config,
            id2label=dict(enumerate(attributes)),
            label2id={name: i for i, name in enumerate(attributes)},
            **recipe.model,
        )
        model = Label2LabelForImageClassification(config)
        if backbone is not None:
            model.label2label.backbone.load_state_dict(backbone.state_dict())
    # Of what no config checks, the layers say in their own ways that they cannot be built.
    except (LookupError, RuntimeError, TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"model: {' '.join(str(error).split())}") from error
    return model, Label2LabelImageProcessor()


def _continue_model(
    recipe: Recipe, attributes: Sequence[str]
) -> tuple[Label2LabelForImageClassification, Label2LabelImageProcessor]:
    model, processor = load_model(str(recipe.init_from))
    if [model.config.id2label[i] for i in range(model.config.num_labels)] != list(attributes):
        model = derive_model(model, attributes)
    # What was calibrated for other weights is not for these.
    absorb_temperature(model)
    processor.thresholds = None  # type: ignore[misc]
    processor.attributes = list(attributes)  # type: ignore[misc, assignment]
    return model, processor


def _change_backbone(backbone: Any, wanted: dict[str, Any]) -> Any:
    allowed = {"out_features"}
    if isinstance(backbone, MobileFaceNetBackbone):
        allowed.add("width_multiplier")
    if not set(wanted) <= allowed:
        raise UserError(
            "beside a backbone, backbone_config can only give its out_features and the "
            "width_multiplier of a MobileFaceNet that is narrower"
        )
    try:
        if "out_features" in wanted:
            backbone.out_features = wanted["out_features"]
        if "width_multiplier" in wanted:
            backbone = narrow_backbone(backbone, wanted["width_multiplier"])
    except (TypeError, ValueError) as error:
        raise UserError(f"backbone_config: {error}") from error
    return backbone


def load_backbone(name: str) -> Any:
    """
    Loads a pretrained backbone, alone or out of a whole model.

    Args:
        name: Folder or Hub id of a backbone or of a Label2label model, or the name of one that
            ships with the package.

    Returns:
        A transformers backbone, in float32 on the CPU.

    Raises:
        UserError: If there is none that can be loaded.
    """
    name = find_checkpoint(name)
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type == Label2LabelConfig.model_type:
            return load_model(name)[0].label2label.backbone
        # AutoBackbone.from_pretrained takes Hub ids only, so the class comes from the config.
        backbone_class = type(AutoBackbone.from_config(config))
        backbone = backbone_class.from_pretrained(name, dtype=torch.float32)
    except Exception as error:  # the Hub's client raises its transport's errors as they are
        raise UserError(
            f"{name}: cannot be loaded as a backbone ({first_line(error)}); "
            "make one with `label2label convert CHECKPOINT OUT`"
        ) from error
    if Path(name).is_dir():
        backbone.config._name_or_path = ""  # a path of this machine says nothing to others
    return backbone


def attribute_frequencies(labels: np.ndarray) -> torch.Tensor:
    """
    Measures how often attributes are present.

    Args:
        labels: (images, attributes); 1, 0 or -100.

    Returns:
        float32 of shape (attributes,), in 0..1; one half where no label is known.
    """
    known = (labels >= 0).sum(axis=0)
    present = (labels > 0).sum(axis=0)
    frequencies = np.where(known > 0, present / np.maximum(known, 1), 0.5)
    return torch.from_numpy(frequencies.astype(np.float32))


@torch.no_grad()
def set_prior(model: Label2LabelForImageClassification, frequencies: torch.Tensor) -> None:
    """
    Starts every attribute's logits at its log-odds, so that training need not first learn which
    attributes are rare (arXiv:1708.02002, section 4.1).

    Args:
        model: Changed in place.
        frequencies: (attributes,), share of images that have it, 0..1.
    """
    log_odds = torch.logit(frequencies, eps=0.01)
    if model.config.head_type == "fc":
        model.classifier.bias.copy_(log_odds)
    else:
        model.label2label.query_network.classifier.bias.copy_(log_odds)
    if model.config.head_type == "label2label":
        model.normalization.bias.copy_(log_odds)
