"""`label2label train`: a recipe run to its end, or stopped by ctrl-C and saved."""

import argparse
import dataclasses
import signal
from pathlib import Path
from typing import Any

from label2label.errors import UserError
from label2label.training.checkpoint import latest_state
from label2label.training.recipe import Recipe, load_recipe
from label2label.training.trainer import Trainer


def train_command(args: argparse.Namespace) -> int:
    """
    Runs `label2label train`.

    Args:
        args: `config`, `set`, `data`, `output`, `resume`.

    Returns:
        Exit status: 0, or 130 where the run was interrupted and saved.

    Raises:
        UserError: If recipe, data or output cannot be used.
    """
    recipe = load_recipe(args.config, args.set)
    if args.data:
        recipe = _replace_data(recipe, args.data)
    trainer = Trainer(recipe, args.output)
    if args.resume:
        trainer.resume()
    elif latest_state(Path(args.output) / "state"):
        raise UserError(f"{args.output}: holds a run; go on with --resume or choose another folder")

    def interrupt(signum: int, frame: Any) -> None:
        trainer.interrupted = True
        # A second one ends at once.
        signal.signal(signum, signal.default_int_handler)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    result = trainer.train()
    if not result["finished"]:
        trainer.accelerator.print(
            f"stopped and saved at step {result['step']}; go on with --resume"
        )
        return 130
    best = trainer.output / "best"
    trainer.accelerator.print(
        f"best validation accuracy {result['best_accuracy']:.4f}; model in {best}"
    )
    return 0


def _replace_data(recipe: Recipe, path: str) -> Recipe:
    """The recipe on another dataset, its conditions and limits kept."""
    sources = recipe.sources
    if len(sources) > 1:
        raise UserError(
            f"the recipe reads {len(sources)} datasets: replace one with --set data.0.path={path}"
        )
    return dataclasses.replace(recipe, data=[dataclasses.asdict(sources[0]) | {"path": path}])
