"""Measure how many answers contradict themselves: a beard on no beard, bald with bangs.

    python benchmarks/contradictions.py --data data/celeba data/lfwa

reads each dataset's test split and counts images with a contradiction (LogicNet, arXiv:2311.11208)
among the labels, the attribute query network's answers, the masked language model's, and these as
`predict` decides them; `accuracy` compares the last two, paired over people. The rules and the
thresholds are the model's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import command_line, finish, write_json
from label2label.checkpoints import find_checkpoint
from label2label.data.loading import load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import (
    collect_predictions,
    identify_model,
    library_versions,
    load_scored_model,
    short_name,
)
from label2label.evaluation.scores import contradiction_scores, jsonable


def main() -> None:
    """Measure all datasets, and write and print the results."""
    parser = command_line(__doc__)
    parser.add_argument("--model", help="folder, Hub id or name (default: the default model)")
    parser.add_argument("--data", nargs="+", default=["data/celeba", "data/lfwa"], metavar="DIR")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results/contradictions.json"))
    args = parser.parse_args()
    name = find_checkpoint(args.model)
    model = load_scored_model(name)
    measured = {}
    for data in args.data:
        predictions = collect_predictions(model, load_split(data, args.split))
        scores = contradiction_scores(predictions)
        if scores is None:
            raise UserError(f"{name} has no rules about its attributes: exclusive_answers is empty")
        title = short_name(data)
        measured[title] = jsonable({"num_images": len(predictions.labels), **scores})
        for answers, row in measured[title].items():
            if isinstance(row, dict) and "share" in row:
                print(f"{title}, {answers.replace('_', ' ')}: {row['share']:.2%} contradict")
        difference = measured[title]["accuracy"]["difference"]
        print(f"{title}: deciding changes accuracy by {difference:+.5f}")
    write_json(
        args.output,
        {
            "model": identify_model(name, model),
            "split": args.split,
            "datasets": measured,
            "versions": library_versions(),
        },
    )


if __name__ == "__main__":
    sys.exit(finish(main))
