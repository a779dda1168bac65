"""A model for other attributes: what its head knows of them is carried over, word by word."""

import copy
from collections.abc import Sequence

import torch

from label2label.data.vocabulary import VOCABULARIES
from label2label.errors import UserError
from label2label.models import Label2LabelForImageClassification


def derive_model(
    model: Label2LabelForImageClassification, attributes: Sequence[str]
) -> Label2LabelForImageClassification:
    """
    Carries a model over to another list of attributes.

    An attribute that the model has keeps its query, words and classifiers. One whose opposite the
    model has (`Beard` = not `No_Beard`) takes over the opposite's, with the two words swapped and
    the signs of its logits changed. The others start from random weights.

    Args:
        model: The one to start from.
        attributes: The attributes wanted, in order.

    Returns:
        A new model; the backbone and the decoders are the old one's.

    Raises:
        UserError: If the model has none of the attributes, nor their opposites.
    """
    old_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    # Where each new attribute comes from, and the sign of its logits: 0 for nowhere.
    sources, signs = [], []
    for name in attributes:
        opposite = VOCABULARIES["union"].opposites.get(name)
        found = name if name in old_names else opposite if opposite in old_names else None
        sources.append(old_names.index(found) if found else 0)
        signs.append(0 if found is None else 1 if found == name else -1)
    if not any(signs):
        raise UserError(
            f"the model knows none of the attributes {', '.join(attributes)}: it cannot be "
            "continued with that vocabulary"
        )
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(attributes))
    config.label2id = {name: i for i, name in enumerate(attributes)}
    derived = Label2LabelForImageClassification(config)
    old = model.state_dict()
    index, sign = torch.tensor(sources), torch.tensor(signs)
    state = {
        name: _carry_over(name, old[name], fresh, index, sign)
        for name, fresh in derived.state_dict().items()
    }
    derived.load_state_dict(state)
    return derived.eval()


def _carry_over(
    name: str, old: torch.Tensor, fresh: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
) -> torch.Tensor:
    """The new model's tensor of one name, from the old one's and one with random weights."""
    *_, module, parameter = name.split(".")
    if module == "word_embeddings":
        absent, present = (half[index] for half in old.chunk(2))
        swapped = (sign < 0)[:, None]
        words = [torch.where(swapped, present, absent), torch.where(swapped, absent, present)]
        known = (sign != 0)[:, None].repeat(2, 1)
        return torch.where(known, torch.cat(words), fresh)
    if module == "coupling":  # from a known attribute's surprise to another's logit
        pairs = sign[:, None] * sign
        return torch.where(pairs != 0, old[index][:, index] * pairs, fresh)
    by_attribute = ("query_embeddings", "mask_embeddings", "classifier", "normalization")
    # The backbone has layers of the name `normalization` too.
    in_backbone = name.startswith("label2label.backbone.")
    if (
        old.ndim == 0
        or in_backbone
        or not (module in by_attribute or parameter == "known_embedding")
    ):
        return old
    # The logits change sign where the classifier, then BatchNorm's mean and offset do.
    negated = module == "classifier" or (
        module == "normalization" and parameter in ("bias", "running_mean")
    )
    shape = (-1, *[1] * (old.ndim - 1))
    known, factor = (sign != 0).view(shape), sign.view(shape)
    return torch.where(known, old[index] * (factor if negated else 1), fresh)


@torch.no_grad()
def absorb_temperature(model: Label2LabelForImageClassification) -> None:
    """
    Moves a calibrated model's temperature into its last layer: its logits stay, and training goes
    on from a temperature of 1.

    Args:
        model: Changed in place.
    """
    last = {
        "fc": "classifier",
        "query2label": "label2label.query_network.classifier",
        "label2label": "normalization",
    }[model.config.head_type]
    layer = model.get_submodule(last)
    for name in ("weight", "bias"):
        layer.get_parameter(name).div_(model.config.temperature)
    if model.config.head_type == "label2label":
        model.coupling.weight.div_(model.config.temperature)
    model.config.temperature = 1.0
