"""How parameters move: optimizer, learning rates, schedule and moving average."""

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

from label2label.training.recipe import Recipe


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """
    Makes the optimizer that a recipe names.

    Args:
        model: A `Label2LabelForImageClassification`.
        recipe: Gives `optimizer`, the learning rates and `weight_decay`.

    Returns:
        AdamW (arXiv:1711.05101), or SGD with momentum 0.9.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=0.9)


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """
    Makes the learning rates rise over the recipe's warm-up, then follow a cosine to 0.

    Args:
        optimizer: Holds the peaks.
        recipe: Gives `warmup`, the share of steps, 0..1.
        steps: Optimizer steps of the run.

    Returns:
        The schedule, to be stepped after every optimizer step.
    """
    return get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * steps), steps)


def build_average(model: torch.nn.Module, recipe: Recipe) -> AveragedModel | None:
    """
    Makes the exponential moving average of weights and of BatchNorm's statistics.

    Its decay rises with the steps n, as (1 + n) / (10 + n), so that the average of a short run is
    not made of the weights that it started from.

    Args:
        model: What is averaged.
        recipe: Gives `ema`, the decay in the end, 0..1; 0 for no average.

    Returns:
        The average, holding the model's present weights, or `None`.
    """
    if not recipe.ema:
        return None

    def average(averaged: Any, current: Any, steps: torch.Tensor | int) -> None:
        decay = min(float(recipe.ema), (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def parameter_groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """
    Splits parameters by learning rate and by whether they decay.

    Args:
        model: A `Label2LabelForImageClassification`.
        recipe: Gives the rates and the decay of matrices and kernels; vectors have none.

    Returns:
        Groups for an optimizer.
    """
    rates = {
        "backbone": recipe.backbone_learning_rate,
        "head": recipe.head_learning_rate,
        # The last BatchNorm alone sets how large logits are, and starts far below where they end.
        "normalization": 10 * recipe.head_learning_rate,
    }
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.removeprefix("label2label.").split(".")[0]
        key = (part if part in rates else "head", parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[part],
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def freeze_statistics(model: torch.nn.Module, recipe: Recipe) -> None:
    """
    Makes BatchNorms use and keep their running means and variances; their weights may still learn.

    Args:
        model: In training mode, which undoes this each time it is set.
        recipe: Gives `freeze_statistics`, for all BatchNorms, and `freeze_backbone`, for those of
            the backbone.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and (
            recipe.freeze_statistics or (recipe.freeze_backbone and "backbone" in name.split("."))
        ):
            module.eval()
