"""Measure for whom models are right, photo in: by source, group, age and look; 11 attributes.

    python benchmarks/fairness.py --data data/merged --faces FACES --peers runs/peers/*.json \\
        --models "CelebA alone=runs/celeba/best" mobilefacenet --plot results/fairness.svg

The photos are the test rows of a merge (`datasets_scripts/merge.py`) as their publishers distribute
them: FACES holds a folder per source, named as the source. As for users, faces are detected in the
photo and aligned; of several, the one nearest to the centre counts. `--peers` are predictions of
other software on the same photos (`peers.py`).

Tables 3 and 4 of the 2024 paper are the rows "East Asian" (its 11 attributes on All-Age-Faces),
"CelebA" (the cost) and "SCUT" (gender, Asian and Caucasian), in `results/east_asian.json`; the
recipe `east-asian` is their fine-tuning.

Predictions are cached per photo under `--runs` until the weights change. Intervals are 95 %
bootstrap intervals; persons are resampled where they are known, otherwise photos.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from common import command_line, finish, write_json
from label2label.checkpoints import find_checkpoint
from label2label.data.vocabulary import VOCABULARIES
from label2label.errors import UserError
from label2label.evaluation.intervals import (
    bootstrap_draws,
    clusters_of,
    compare_paired,
    expected_gap_under_null,
    interval_of,
    wald_p_value,
)
from label2label.evaluation.metrics import ratio
from label2label.evaluation.plots import BLUE, ORANGE, STYLE, figure_svg
from label2label.evaluation.scores import jsonable
from label2label.faces.alignment import choose_face
from label2label.faces.face import Face
from label2label.files import sha256, write_whole
from label2label.prediction.predictor import AttributePredictor, count_cores, map_in_threads
from matplotlib import rc_context
from matplotlib.figure import Figure
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets_scripts"))
import fairface
import lfwa
from by_name import SETS
from preparation.framing import decode_image
from preparation.program import hash_fraction
from preparation.sources import Download, Images
from preparation.stored import StoredSample, read_stored_samples

FOLDERS = {  # possible names of the images' folder, and the depth of their names, by source
    "celeba": (("img_align_celeba",), 1),
    "celeba-wild": (("img_celeba",), 1),
    "lfwa": (lfwa.ROOTS, 2),
    "fairface": (fairface.ROOTS, 2),
    **{name: (names.roots, names.depth) for name, names in SETS.items()},
}
ROWS = Path(__file__).with_name("fairness.yaml")
CELEBA = VOCABULARIES["celeba-40"].attributes
ELEVEN = VOCABULARIES["korean-11"].attributes
OPPOSITES = VOCABULARIES["union"].opposites
UNSEEN_IN_CELEBA = "Wearing_Mask"
CERTAIN = 0.9  # probability from which an answer counts as certain
MINIMUM = 10  # photos labelled yes, and no, for a balanced accuracy
MASKED = 500  # CelebA photos that are also shown with a drawn mask
# From the bridge of the nose around the chin, in CelebA's aligned images of 178x218 pixels.
MASK_OUTLINE = ((89, 125), (65, 130), (48, 137), (48, 154), (58, 176), (89, 187), (120, 176))
MASK_OUTLINE += ((130, 154), (130, 137), (113, 130))
MASK_COLORS = ((165, 205, 228), (228, 234, 236), (172, 214, 202), (70, 74, 80))
SAVED_EVERY = 200  # photos

Answer = dict[str, float] | None
"""Probability by attribute; None where no face was found."""


@dataclass(frozen=True)
class Photo:
    """A test photo of one person.

    Args:
        sample: Its row in the merge.
        images: The photos of its source.
        variant: Of CelebA: `"mask"` with a drawn mask, `"wild"` for the photo that the aligned
            image was made from, `"aligned"` for that image once more. Each is a source of its own.
    """

    sample: StoredSample
    images: Images
    variant: str = ""

    @property
    def name(self) -> str:
        """Return the photo's name in its source."""
        return self.sample.key.partition("#")[0].removeprefix(f"{self.sample.source}/")

    @property
    def key(self) -> str:
        """Return the unique name: `source/name#variant`."""
        return "#".join(filter(None, (self.sample.key.partition("#")[0], self.variant)))

    @property
    def source(self) -> str:
        """Return the dataset's name, with the variant."""
        return "-".join(filter(None, (self.sample.source, self.variant)))

    def read(self) -> np.ndarray:
        """Return the pixels, uint8 RGB (height, width, 3)."""
        photo = decode_image(self.images.read(self.name))
        if self.variant == "mask":
            outline = np.array([MASK_OUTLINE], np.int32)
            color = np.array(MASK_COLORS[int(hash_fraction(self.key) * len(MASK_COLORS))])
            cover = cv2.fillPoly(np.zeros(photo.shape[:2]), outline, 1, cv2.LINE_AA)[..., None]
            # Lit like the face below it.
            light = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (0, 0), 12)[..., None]
            mask = (color * light / max(light[cover > 0].mean(), 1)).clip(0, 255)
            photo = (photo * (1 - cover) + mask * cover).astype(np.uint8)
        return photo


def read_photos(data: Path, faces: Path, limit: int | None = None) -> list[Photo]:
    """Find the test photos.

    Args:
        data: The merge.
        faces: Folder of the sources in their publishers' layouts.
        limit: Maximum number of photos per source, drawn by a hash of their names; all by default.

    Returns:
        The photos, source by source: of LFWA as many of men as of women, and of CelebA also the
        variants of `Photo`. A source without a folder is reported on standard error.

    Raises:
        UserError: If no source is there, or one lacks a photo.
    """
    by_source: dict[str, list[StoredSample]] = {}
    for sample in read_stored_samples(data):
        if sample.split == "test":
            by_source.setdefault(sample.source, []).append(sample)
    photos: list[Photo] = []
    for source, samples in by_source.items():
        if not (faces / source).is_dir() or source not in FOLDERS:
            print(f"warning: no photos of {source} in {faces}: left out", file=sys.stderr)
            continue
        roots, depth = FOLDERS[source]
        images = Download(faces / source).images(*roots, depth=depth)
        samples = sorted(samples, key=lambda sample: hash_fraction(sample.key))
        if source == "lfwa":
            sexes = [[s for s in samples if s.attributes["Male"] is sex] for sex in (True, False)]
            samples = [sample for pair in zip(*sexes, strict=False) for sample in pair]
        kept = [Photo(sample, images) for sample in samples[:limit]]
        if source == "celeba":
            kept += [Photo(photo.sample, images, "mask") for photo in kept[:MASKED]]
            if (faces / "celeba-wild").is_dir():
                wild = Download(faces / "celeba-wild").images("img_celeba")
                both = [s for s in samples if Photo(s, wild).name in wild][:limit]
                for variant, place in (("wild", wild), ("aligned", images)):
                    kept += [Photo(sample, place, variant) for sample in both]
        photos += sorted(kept, key=lambda photo: photo.key)
    if not photos:
        raise UserError(f"{faces} has no folder named like a source of {data}")
    return photos


def middle_face(faces: Sequence[dict[str, Any]], photo: np.ndarray) -> dict[str, Any] | None:
    """Return the detected face nearest to the centre of the photo, None without faces."""
    boxes = [Face(tuple(face["box"]), 1.0) for face in faces]
    return faces[boxes.index(choose_face(boxes, photo))] if boxes else None


def cached_answers(
    file: Path,
    about: dict[str, Any],
    photos: Sequence[Photo],
    ask: Callable[[Sequence[Photo]], Iterator[Answer]],
) -> dict[str, Any]:
    """Predict photos, except those whose predictions a file holds already.

    Args:
        file: JSON file of the cache, written every `SAVED_EVERY` photos.
        about: `name` and `version`; predictions of another version are discarded.
        photos: Photos to predict.
        ask: Function that predicts photos in order.

    Returns:
        `about` and `answers`, an `Answer` by photo key.
    """
    kept = load_answers(file) if file.is_file() else {}
    answers = kept["answers"] if kept.get("version") == about["version"] else {}
    left = [photo for photo in photos if photo.key not in answers]
    for number, answer in enumerate(tqdm(ask(left), about["name"], len(left)) if left else (), 1):
        answers[left[number - 1].key] = answer
        if number % SAVED_EVERY == 0 or number == len(left):
            write_whole(file, json.dumps(about | {"answers": answers}) + "\n")
    return about | {"answers": answers}


def load_answers(path: Path) -> dict[str, Any]:
    """Read a file of `cached_answers`; raise UserError for any other file."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {"name": kept["name"], "version": kept["version"], "answers": dict(kept["answers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no predictions of benchmarks/peers.py: {error}") from error


def predict(model: Path, photos: Sequence[Photo]) -> Iterator[Answer]:
    """Predict photos with a model of this project."""
    predictor = AttributePredictor.from_pretrained(model)

    def answer(photo: Photo) -> Answer:
        pixels = photo.read()
        face = middle_face(predictor(pixels), pixels)
        return face and {name: round(p, 4) for name, p in face["attributes"].items()}

    return map_in_threads(answer, photos, count_cores(), ahead=2 * count_cores())


def answer_photos(model: str, photos: Sequence[Photo], runs: Path) -> dict[str, Any]:
    """Predict photos with `NAME=MODEL` or `MODEL`, or read the cached predictions."""
    name, _, place = model.rpartition("=")
    path = Path(find_checkpoint(place))
    weights = path / "model.safetensors" if path.is_dir() else path
    about = {"name": name or path.name, "version": sha256(weights)}
    file = runs / f"{about['version'][:12]}.json"
    return cached_answers(file, about, photos, lambda left: predict(path, left))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        key: Key in the JSON file.
        title: Title in the table.
        where: Condition, for pandas, on `source`, `race`, `age` and labels of the photos.
        attributes: Attributes that are scored; their scores are averaged.
        metric: `"balanced"`: mean of the accuracy on photos labelled yes and on those labelled no,
            or the one of them with at least `MINIMUM` photos; `"accuracy"`; `"certain"`: the share
            of wrong answers among those with a probability above 0.9; or `"found"`: the share of
            photos with a detected face.
        gap: Name of the group comparison that the row belongs to, or None.
    """

    key: str
    title: str
    where: str
    attributes: Sequence[str]
    metric: str = "balanced"
    gap: str | None = None


def table_rows() -> list[Row]:
    """Read the rows of the table, in order."""
    lists = {
        **{"celeba-40": list(CELEBA), "korean-11": list(ELEVEN)},
        "shared": [name for name in ELEVEN if name != UNSEEN_IN_CELEBA],
    }
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    for values in rows.values():
        names = values.get("attributes", "Male")
        values["attributes"] = names if isinstance(names, list) else lists.get(names, [names])
    return [Row(key, **values) for key, values in rows.items()]


class Table:
    """Scores of models on the photos of each row.

    Args:
        photos: Photos of all datasets.
        rows: Rows of the table.
        resamples: Number of bootstrap resamples.
    """

    def __init__(self, photos: Sequence[Photo], rows: Sequence[Row], resamples: int = 1000) -> None:
        self.photos, self.resamples = photos, resamples
        about = [(photo.source, photo.sample.race, photo.sample.age) for photo in photos]
        self.truth = pd.DataFrame(about, columns=["source", "race", "age"]).astype({"age": float})
        for name in VOCABULARIES["union"].attributes:
            self.truth[name] = [_number(photo.sample.attributes, name) for photo in photos]
        self.members = {}
        for row in rows:
            labelled = self.truth[row.attributes].notna().any(axis=1)
            self.members[row.key] = np.flatnonzero(self.truth.eval(row.where) & labelled)
        self.rows = [row for row in rows if len(self.members[row.key])]
        people = [(photo.sample.source, photo.sample.identity) for photo in photos]
        self.clusters = clusters_of([name and f"{source} {name}" for source, name in people])

    def describe(self) -> dict[str, Any]:
        """Return title, attributes, metric, gap, number of photos and chance by row.

        `majority` is the accuracy of always giving the more frequent answer.
        """
        described = {}
        for row in self.rows:
            shares = self.truth.loc[self.members[row.key], row.attributes].mean()
            described[row.key] = {
                **{name: value for name, value in asdict(row).items() if name != "key"},
                "num_photos": len(self.members[row.key]),
                "majority": float(np.maximum(shares, 1 - shares).mean()),
            }
        return described

    def statistics(
        self, answers: dict[str, Answer], counted: np.ndarray | None = None
    ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Return the bootstrap's statistic: photo weights (resamples, photos) to scores by row.

        Args:
            answers: Predictions by photo key.
            counted: (photos,) bool: the photos that count; all by default.
        """
        told = [answers.get(photo.key) for photo in self.photos]
        asked = np.array([photo.key in answers for photo in self.photos])
        found = np.array([answer is not None for answer in told])
        asked, found = (part if counted is None else part & counted for part in (asked, found))
        names = {name for row in self.rows for name in row.attributes}
        says = {name: np.array([_number(answer or {}, name) for answer in told]) for name in names}
        parts = {
            row.key: (chosen, *self._parts(row, says, asked[chosen], found[chosen]))
            for row in self.rows
            for chosen in [self.members[row.key]]
        }

        def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {
                key: ratio(weights[:, chosen] @ hits, weights[:, chosen] @ cases).mean(axis=1)
                for key, (chosen, hits, cases) in parts.items()
            }

        return scores

    def _parts(
        self, row: Row, says: dict[str, np.ndarray], asked: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return hits and cases, (photos, rates): the score is the mean of the rates."""
        chosen = self.members[row.key]
        rates = [(found, asked)] if row.metric == "found" else []
        for name in () if rates else row.attributes:
            truth, says_yes = self.truth[name].to_numpy()[chosen], says[name][chosen]
            told = found & np.isfinite(truth) & np.isfinite(says_yes)
            right = told & ((says_yes > 0.5) == (truth > 0.5))
            if row.metric == "accuracy":
                rates.append((right, told))
            elif row.metric == "certain":
                certain = told & (np.abs(says_yes - 0.5) > CERTAIN - 0.5)
                rates.append((certain & ~right, certain))
            else:
                sides = [side for side in (truth == 1, truth == 0) if side.sum() >= MINIMUM]
                if len(sides) == 2 or len(row.attributes) == 1:
                    rates += [(right & side, told & side) for side in sides]
        columns = rates or [(np.zeros(len(chosen)),) * 2]
        hits, cases = (np.stack(part, axis=1).astype(float) for part in zip(*columns, strict=True))
        return hits, cases

    def measure(self, answers: dict[str, Answer]) -> dict[str, Any]:
        """Score one model.

        Args:
            answers: Predictions by photo key.

        Returns:
            `rows`: `value` and its 95 % `interval` by key; `gaps`: by comparison the `worst` and
            `best` row, `gap`, `gap_interval`, `expected_gap_under_null` and `p_value`.
        """
        statistics = self.statistics(answers)
        values = {k: value[0] for k, value in statistics(np.ones((1, len(self.photos)))).items()}
        draws = bootstrap_draws(statistics, self.clusters, self.resamples)
        rows = {
            key: {"value": value, "interval": np.clip(interval_of(draws[key], value), 0, 1)}
            for key, value in values.items()
        }
        gaps = {}
        for gap in dict.fromkeys(row.gap for row in self.rows if row.gap):
            keys = [row.key for row in self.rows if row.gap == gap and np.isfinite(values[row.key])]
            if len(keys) < 2:
                continue
            worst, best = min(keys, key=values.__getitem__), max(keys, key=values.__getitem__)
            of_groups = np.stack([draws[key] for key in keys], axis=1)
            size = values[best] - values[worst]
            gaps[gap] = {
                **{"worst": worst, "best": best, "gap": size},
                "gap_interval": interval_of(draws[best] - draws[worst], size),
                "expected_gap_under_null": expected_gap_under_null(of_groups),
                "p_value": wald_p_value(of_groups, np.array([values[key] for key in keys])),
            }
        return {"rows": rows, "gaps": gaps}

    def compare(self, answers: dict[str, Answer], others: dict[str, Answer]) -> dict[str, Any]:
        """Compare two models by the paired bootstrap on the photos in which both found a face.

        Returns:
            By row key, the result of `compare_paired`.
        """
        both = np.array([None not in (answers.get(p.key), others.get(p.key)) for p in self.photos])
        first, second = self.statistics(answers, both), self.statistics(others, both)
        return compare_paired(first, second, self.clusters, self.resamples)


def _number(values: dict[str, Any], name: str) -> float:
    """Return a label or probability, if need be from its opposite; NaN if it is unknown."""
    value, opposite = values.get(name), values.get(OPPOSITES.get(name, ""))
    if value is None and opposite is not None:
        value = 1 - opposite
    if value is None and name == UNSEEN_IN_CELEBA and isinstance(values.get("Eyeglasses"), float):
        return 0.0  # a model without the word never says that it sees one
    return float("nan") if value is None else float(value)


PLOTTED = (
    *("lfwa", "fairface", "utkface-from-15", "all-age-faces-from-15", "scut-fbp5500"),
    *(f"fairface-from-20/{race.replace('_', ' ')}" for race in fairface.RACES),
    *("women-without-lipstick", "women-from-60", "men-with-wavy-hair", "hats"),
    *("children-10-to-19", "dark-skin"),
)


def draw(result: dict[str, Any]) -> Figure:
    """Plot `Male` by source and group: first and last model with intervals, the peers as marks.

    Args:
        result: The result as written to JSON.
    """
    models = [model for model in result["models"] if not model["peer"]]
    peers = [model for model in result["models"] if model["peer"]]
    places = {key: -place for place, key in enumerate(k for k in PLOTTED if k in result["rows"])}
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.3 + 0.32 * len(places)), layout="constrained")
        axes = figure.add_subplot()
        marks = zip(peers, "x+1234", strict=False)
        before = [(models[0], "o", ORANGE)] if len(models) > 1 else []
        shown = [(models[-1], "o", BLUE), *before]
        for model, mark, color in [*shown, *((peer, mark, "black") for peer, mark in marks)]:
            scores = {key: model["rows"][key] for key in places}
            known = [key for key in places if scores[key]["value"] is not None]
            value = np.array([100 * scores[key]["value"] for key in known])
            ends = 100 * np.array([scores[key]["interval"] for key in known]).reshape(-1, 2).T
            height = np.array([places[key] for key in known]) + 0.13 * (color == ORANGE)
            spread = np.abs(ends - value) if color != "black" else None
            axes.errorbar(
                *(value, height), xerr=spread, fmt=mark, color=color, capsize=2, label=model["name"]
            )
        axes.set_yticks([*places.values()], [result["rows"][key]["title"] for key in places])
        axes.grid(color="#e2e8f0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("accuracy of Male, balanced over men and women, %")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Predict, score and compare.

    Returns:
        `rows` (see `Table.describe`), `models` (the scores of each; the `subject`, the last model,
        is also compared `against_it`), and `resamples`.
    """
    photos = read_photos(args.data, args.faces, args.limit)
    table = Table(photos, table_rows(), args.bootstrap)
    models = [answer_photos(model, photos, args.runs) for model in args.models]
    subject = models[-1]
    entries = []
    for model in [*models, *map(load_answers, args.peers)]:
        entry = {"name": model["name"], "version": model["version"], "peer": model not in models}
        entry |= table.measure(model["answers"])
        if model is not subject:
            entry["subject_against_it"] = table.compare(subject["answers"], model["answers"])
        entries.append(entry)
    return jsonable(
        {
            **{"subject": subject["name"], "resamples": args.bootstrap},
            **{"rows": table.describe(), "models": entries},
        }
    )


def main() -> None:
    """Measure, write, and print the scores in %."""
    parser = command_line(__doc__)
    add_photo_options(parser)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="[NAME=]MODEL", help="the last is the subject"
    )
    parser.add_argument("--peers", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--runs", type=Path, default=Path("runs/fairness"), metavar="DIR")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("results/fairness.json"))
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="of `Male`; none by default")
    args = parser.parse_args()
    result = measure(args)
    write_json(args.output, result)
    if args.plot:
        args.plot.write_bytes(figure_svg(draw(result)))
    titles = {key: row["title"] for key, row in result["rows"].items()}
    values = {
        model["name"]: {titles[key]: row["value"] for key, row in model["rows"].items()}
        for model in result["models"]
    }
    print(pd.DataFrame(values, dtype=float).mul(100).round(1).to_string(na_rep="–"))


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the photos."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the merge")
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="raw downloads")
    parser.add_argument("--limit", type=int, metavar="N", help="photos per source, for a trial")


if __name__ == "__main__":
    sys.exit(finish(main))
