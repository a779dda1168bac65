"""Measure for whom models are right: `Male`, `Young` and `Wearing_Mask` by source, group and age.

    python benchmarks/fairness.py --faces ~/.cache/faces --lfw-labels lfw_labels.csv \\
        --models OLD NEW --peers runs/peers/*.json

The input is the photo, as users provide it: the faces in each test photo are detected and aligned,
and the face nearest to the centre is predicted. FACES holds CelebA, LFWA, FairFace, UTKFace,
All-Age-Faces, SCUT-FBP5500 and the masks in their publishers' layouts, as `datasets_scripts/` reads
them; only their test splits are used, by the same rule as there (for LFW, the test persons).
`--peers` are predictions of other software on the same photos, as `peers.py` writes them.

A model's predictions are cached under `--runs` until its weights or the photos change. The program
writes `results/fairness.json` and a plot, `results/fairness.svg`. Intervals are 95 % intervals of
the bootstrap over persons if they are known, otherwise over photos.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.evaluation.intervals import (
    bootstrap_draws,
    clusters_of,
    expected_gap_under_null,
    interval_of,
    p_values,
    wald_p_value,
)
from label2label.evaluation.metrics import ratio
from label2label.evaluation.plots import BLUE, GRAY, ORANGE, STYLE, save_figure
from label2label.evaluation.scores import jsonable
from label2label.faces.alignment import choose_face
from label2label.faces.detection import Face
from label2label.files import sha256, write_whole
from label2label.prediction.photos import read_photo
from label2label.prediction.predictor import AttributePredictor
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets_scripts"))
from lfwa import SHARES as LFW_SHARES
from preparation.program import split_by_hash
from utkface import RACES as UTKFACE_RACES

ASKED = ("Male", "Young", "Wearing_Mask")
YOUNG_BELOW = 40
OLDEST = 200
CERTAIN = 0.9  # probability above which a prediction counts as certain
FAIRFACE_RACES = (
    *("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian"),
    "Middle Eastern",
)
MINIMUM_IMAGES = 10  # with a prediction, per sex, for a balanced accuracy


@dataclass(frozen=True)
class TestPhoto:
    """A photo of one person from a test split, with the publisher's annotations.

    Args:
        source: Name of the dataset.
        name: Name of the photo in the dataset.
        file: Path of the photo; with `archive`, the name in that zip file.
        person: Identity of the person, None if unknown.
        race: Race as the dataset names it.
        age: Age in years; the lower end of an age range.
        labels: Known labels by attribute.
    """

    source: str
    name: str
    file: str
    archive: str | None = None
    person: str | None = None
    race: str | None = None
    age: int | None = None
    labels: dict[str, bool] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return the photo's unique name among the photos of all datasets."""
        return f"{self.source}/{self.name}"

    def read(self) -> np.ndarray:
        """Return the pixels, uint8 RGB (height, width, 3)."""
        if self.archive is None:
            return read_photo(self.file)
        return read_photo(_open_archive(self.archive).read(self.file))


@cache
def _open_archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _annotation(path: Path) -> dict[str, dict[str, bool]]:
    """Read the attributes of each image from a text file in CelebA's or LFWA's format."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split() if len(lines[0].split()) > 1 else lines[1].split()
    rows = (line.split() for line in lines if len(line.split()) == len(names) + 1)
    return {
        row[0]: dict(zip(names, (value == "1" for value in row[1:]), strict=True)) for row in rows
    }


def read_lfw(root: Path, labels: Path) -> list[TestPhoto]:
    """Return photos of LFW's test persons: all photos of women, and as many of men.

    Args:
        root: Folder of LFWA, with `lfw-deepfunneled` and `lfw_att_40.txt`.
        labels: CSV with `image` and `male`, verified by hand (LFWA's own `Male` is noisy).
    """
    attributes = _annotation(root / "lfw_att_40.txt")
    photos = {True: [], False: []}
    for row in _rows(labels):
        name, person = row["image"], row["image"].partition("/")[0]
        if row["male"] not in ("0", "1") or split_by_hash(person, LFW_SHARES) != "test":
            continue
        known = {**attributes.get(name, {}), "Male": row["male"] == "1"}
        file = root / "lfw-deepfunneled" / name
        photos[known["Male"]].append(TestPhoto("lfw", name, str(file), person=person, labels=known))
    limit = min(map(len, photos.values()))
    return sorted(
        (p for part in photos.values() for p in _drawn(part, limit)), key=lambda p: p.name
    )


def _drawn(photos: Iterable[TestPhoto], limit: int) -> list[TestPhoto]:
    """Draw photos by a hash of their names: a larger limit only adds photos."""
    return sorted(photos, key=lambda p: hashlib.sha256(p.key.encode()).digest())[:limit]


def read_fairface(root: Path) -> list[TestPhoto]:
    """Return the photos of FairFace's published validation split."""
    photos = []
    for row in _rows(root / "fairface_label_val.csv"):
        digits = "".join(c if c.isdigit() else " " for c in row["age"]).split()
        age = int(digits[0])
        photos.append(
            TestPhoto(
                *("fairface", row["file"]),
                str(root / "fairface-img-margin025-trainval" / row["file"]),
                race=row["race"],
                age=age,
                labels={"Male": row["gender"] == "Male", "Young": age < YOUNG_BELOW},
            )
        )
    return photos


def read_utkface(root: Path) -> list[TestPhoto]:
    """Return UTKFace's test photos; their file names hold the labels."""
    archive = root / "UTKFace.zip"
    photos = []
    for member in _open_archive(str(archive)).namelist():
        name = member.rpartition("/")[2]
        fields = name.split("_")
        if len(fields) != 4 or not all(part.isdecimal() for part in fields[:3]):
            continue
        age, gender, race = map(int, fields[:3])
        if split_by_hash(name) == "test" and race < len(UTKFACE_RACES):
            labels = {"Male": gender == 0, "Young": age < YOUNG_BELOW}
            photos.append(
                TestPhoto(
                    *("utkface", name, member, str(archive)),
                    race=UTKFACE_RACES[race],
                    age=age,
                    labels=labels,
                )
            )
    return photos


def _test_names(root: Path) -> list[str]:
    return [row["image"] for row in _rows(root / "splits.csv") if row["split"] == "test"]


def read_all_age_faces(root: Path) -> list[TestPhoto]:
    """Return All-Age-Faces' test photos, named NNNNNAXX: NNNNN gives the sex and XX the age."""
    photos = []
    for name in _test_names(root):
        number, _, age = Path(name).stem.partition("A")
        years = int(age)
        labels = {"Male": int(number) > 7380, "Young": years < YOUNG_BELOW}
        file = str(root / "images" / name)
        photos.append(TestPhoto("all-age-faces", name, file, age=years, labels=labels))
    return photos


def read_scut(root: Path) -> list[TestPhoto]:
    """Return SCUT-FBP5500's test photos; names begin with A (Asian) or C (Caucasian), F or M."""
    return [
        TestPhoto(
            *("scut", name, str(root / "images" / name)),
            race={"A": "Asian", "C": "Caucasian"}[name[0]],
            labels={"Male": name[1] == "M"},
        )
        for name in _test_names(root)
    ]


def read_masks(root: Path) -> list[TestPhoto]:
    """Return the test photos of the masks; their folder is the label."""
    return [
        TestPhoto(
            *("masks", name, str(root / "images" / name)),
            labels={"Wearing_Mask": name.startswith("with_mask/")},
        )
        for name in _test_names(root)
    ]


def read_celeba(root: Path) -> list[TestPhoto]:
    """Return the available photos of CelebA's official test split, which are aligned."""
    attributes = _annotation(root / "list_attr_celeba.txt")
    partition, people = (
        dict(line.split() for line in (root / name).read_text().splitlines())
        for name in ("list_eval_partition.txt", "identity_CelebA.txt")
    )
    archive = str(root / "img_align_celeba.zip")
    members = {name.rpartition("/")[2]: name for name in _open_archive(archive).namelist()}
    return [
        TestPhoto(*("celeba", name, members[name], archive), person=people.get(name), labels=labels)
        for name, labels in attributes.items()
        if partition.get(name) == "2" and name in members
    ]


def read_photos(faces: Path, lfw_labels: Path, limit: int | None = None) -> list[TestPhoto]:
    """Find the test photos of all datasets.

    Args:
        faces: Folder with the datasets in their publishers' layouts.
        lfw_labels: As for `read_lfw`.
        limit: Maximum photos per dataset, drawn by a hash of their names; all by default.

    Returns:
        The photos, dataset by dataset; a missing dataset is reported on standard error.

    Raises:
        UserError: No dataset was found, or one is damaged.
    """
    readers: dict[str, Callable[[], list[TestPhoto]]] = {
        "celeba": lambda: read_celeba(faces / "celeba"),
        "lfwa": lambda: read_lfw(faces / "lfwa", lfw_labels),
        "fairface": lambda: read_fairface(faces / "fairface"),
        "utkface": lambda: read_utkface(faces / "utkface"),
        "all-age-faces": lambda: read_all_age_faces(faces / "all-age-faces"),
        "scut-fbp5500": lambda: read_scut(faces / "scut-fbp5500"),
        "masks": lambda: read_masks(faces / "masks"),
    }
    photos = []
    for folder, read in readers.items():
        if not (faces / folder).is_dir():
            print(f"warning: no {faces / folder}: left out", file=sys.stderr)
            continue
        try:
            found = read()
        except (KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{faces / folder} is not as its publisher lays it out: {error!r}"
            ) from error
        photos += sorted(_drawn(found, limit), key=lambda photo: photo.name) if limit else found
    if not photos:
        raise UserError(f"{faces} holds none of {', '.join(readers)}")
    return photos


Answer = dict[str, float] | None
"""Probability of each of `ASKED` that is told; None where no face was found."""


def middle_face(faces: Sequence[dict[str, Any]], photo: np.ndarray) -> dict[str, Any] | None:
    """Return the detected face nearest to the centre of the photo, None without faces."""
    boxes = [Face(tuple(face["box"]), 1.0) for face in faces]
    return faces[boxes.index(choose_face(boxes, photo))] if boxes else None


def answer_photos(model: str, photos: Sequence[TestPhoto], runs: Path) -> dict[str, Any]:
    """Predict photos with a model, or read its cached predictions.

    Args:
        model: A folder, a Hub id, an ONNX file or the name of a shipped model.
        photos: Photos to predict.
        runs: Folder of the cached predictions.

    Returns:
        `name`, `weights_sha256` and `answers`, an `Answer` by photo key.

    Raises:
        UserError: The model cannot be loaded, or a photo cannot be read.
    """
    path = Path(find_checkpoint(model))
    weights = path / "model.safetensors" if path.is_dir() else path
    digest = sha256(weights) if weights.is_file() else None
    kept = runs / f"{path.name}.json"
    if kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if (
            digest
            and before["weights_sha256"] == digest
            and set(before["answers"]) >= {photo.key for photo in photos}
        ):
            return before
    sizes: list[np.ndarray] = []

    def opened() -> Iterator[Image.Image]:
        for photo in photos:
            pixels = photo.read()
            sizes.append(np.empty((*pixels.shape[:2], 0)))
            yield Image.fromarray(pixels)

    answers: dict[str, Answer] = {}
    entries = AttributePredictor.from_pretrained(path).predict_photos(opened())
    for photo, entry in zip(photos, tqdm(entries, path.name, len(photos)), strict=True):
        if "error" in entry:
            raise UserError(f"{photo.key}: {entry['error']}")
        face = middle_face(entry["faces"], sizes[len(answers)])
        told = face and {n: p for n, p in face["attributes"].items() if n in ASKED}
        answers[photo.key] = told
    result = {"name": path.name, "weights_sha256": digest, "answers": answers}
    write_whole(kept, json.dumps(result) + "\n")
    return result


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        key: Key in the JSON file.
        title: Title in the table.
        chosen: Selects the photos that count.
        attribute: Attribute that is scored.
        certain: Whether to count only predictions above 0.9 and report the share that is wrong.
        gap: Name of the group comparison that the row belongs to, or None.
    """

    key: str
    title: str
    chosen: Callable[[TestPhoto], bool]
    attribute: str = "Male"
    certain: bool = False
    gap: str | None = None


def _of(source: str, least: int = 0, below: int = OLDEST, race: str | None = None) -> Any:
    def chosen(photo: TestPhoto) -> bool:
        by_age = (least, below) == (0, OLDEST) or (
            photo.age is not None and least <= photo.age < below
        )
        return photo.source == source and by_age and race in (None, photo.race)

    return chosen


def _has(source: str, **labels: bool) -> Any:
    def chosen(photo: TestPhoto) -> bool:
        return photo.source == source and all(
            photo.labels.get(name) is label for name, label in labels.items()
        )

    return chosen


def table_rows() -> list[Row]:
    """Return the rows of the table in order."""
    sets = [
        Row("lfw", "LFW, test persons", _of("lfw")),
        Row("fairface", "FairFace, all ages", _of("fairface")),
        Row("fairface-from-20", "FairFace, 20 and older", _of("fairface", 20)),
        Row("utkface", "UTKFace, all ages", _of("utkface")),
        Row("utkface-from-15", "UTKFace, 15 and older", _of("utkface", 15)),
        Row("all-age-faces", "All-Age-Faces, all ages", _of("all-age-faces")),
        Row("all-age-faces-from-15", "All-Age-Faces, 15 and older", _of("all-age-faces", 15)),
        Row("scut", "SCUT-FBP5500", _of("scut")),
        Row("celeba", "CelebA, official test", _of("celeba")),
    ]
    groups = [
        Row(
            *(f"{source}/{race}", f"{title}: {race.replace('_', ' or ')}"),
            *(_of(source, least, race=race), "Male", False, gap),
        )
        for source, title, least, races, gap in (
            ("fairface", "FairFace, 20 and older", 20, FAIRFACE_RACES, "fairface-from-20"),
            ("utkface", "UTKFace, 15 and older", 15, UTKFACE_RACES, "utkface-from-15"),
            ("scut", "SCUT", 0, ("Asian", "Caucasian"), "scut"),
        )
        for race in races
    ]
    ages = [
        Row(
            f"{source}/{low}",
            f"{title}, {low} to {high - 1}" if high < OLDEST else f"{title}, {low} and older",
            _of(source, low, high),
        )
        for source, title, edges in (
            ("fairface", "FairFace", (0, 3, 10, 20, 30, 40, 50, 60, 70)),
            ("utkface", "UTKFace", (0, 5, 10, 20, 30, 45, 60)),
            ("all-age-faces", "All-Age-Faces", (0, 10, 20, 30, 45, 60)),
        )
        for low, high in pairwise((*edges, OLDEST))
    ]
    looks = [
        Row(
            *("women-without-lipstick", "women without visible lipstick (LFW)"),
            _has("lfw", Male=False, Wearing_Lipstick=False),
        ),
        Row(
            *("women-from-60", "women of 60 and older (UTKFace, FairFace, All-Age-Faces)"),
            lambda p: p.labels.get("Male") is False and (p.age or 0) >= 60,
        ),
        Row(  # no dataset labels long hair
            *("men-with-wavy-hair", "men with wavy hair or bangs (CelebA)"),
            lambda p: (
                _has("celeba", Male=True, Wavy_Hair=True)(p)
                or _has("celeba", Male=True, Bangs=True)(p)
            ),
        ),
        Row(
            *("children-10-to-19", "10 to 19 years (FairFace, UTKFace, All-Age-Faces)"),
            lambda p: 10 <= (p.age or 0) < 20,
        ),
        Row("hats", "with a hat (LFW)", _has("lfw", Wearing_Hat=True)),
        Row("hats-celeba", "with a hat (CelebA)", _has("celeba", Wearing_Hat=True)),
        Row(
            *("dark-skin", "labelled Black, 20 and older (FairFace, UTKFace)"),
            lambda p: p.race == "Black" and (p.age or 0) >= 20,
        ),
    ]
    young = [
        Row(
            f"young/{source}" + (f"/{race}" if race else ""),
            f"Young, {title}" + (f": {race.replace('_', ' or ')}" if race else ""),
            *(_of(source, race=race), "Young", False, race and f"young/{source}"),
        )
        for source, title, races in (
            ("fairface", "FairFace", FAIRFACE_RACES),
            ("utkface", "UTKFace", UTKFACE_RACES),
        )
        for race in (None, *races)
    ]
    certain = [
        Row(
            f"certain/{row.key}",
            f"wrong of answers above 0.9, {row.title}",
            row.chosen,
            "Male",
            True,
        )
        for row in sets
    ]
    masks = Row("masks", "Wearing_Mask on real masks", _of("masks"), "Wearing_Mask")
    return [*sets, *groups, *ages, *looks, *young, *certain, masks]


class Table:
    """Scores of models on the photos of each row.

    Args:
        photos: Photos of all datasets.
        rows: Rows of the table.
        resamples: Number of bootstrap resamples.
    """

    def __init__(
        self, photos: Sequence[TestPhoto], rows: Sequence[Row], resamples: int = 1000
    ) -> None:
        self.photos = photos
        self.resamples = resamples
        self.members = {
            row.key: np.array(
                [
                    i
                    for i, photo in enumerate(photos)
                    if row.chosen(photo) and photo.labels.get(row.attribute) is not None
                ],
                dtype=int,
            )
            for row in rows
        }
        self.rows = [row for row in rows if len(self.members[row.key])]
        self.clusters = clusters_of(
            [photo.person and f"{photo.source} {photo.person}" for photo in photos]
        )
        self.truth = {
            name: np.array([photo.labels.get(name) is True for photo in photos]) for name in ASKED
        }

    def probabilities(self, answers: dict[str, Answer]) -> dict[str, np.ndarray]:
        """Return (photos,) per attribute, NaN without a detected face or a prediction."""
        told = [answers.get(photo.key) or {} for photo in self.photos]
        return {name: np.array([a.get(name, np.nan) for a in told], float) for name in ASKED}

    def scores(
        self, probabilities: dict[str, np.ndarray], counted: np.ndarray | bool = True
    ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Return the bootstrap's statistic: image weights (resamples, photos) to scores by row."""

        def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
            scores = {}
            for row in self.rows:
                chosen = self.members[row.key]
                p, truth = probabilities[row.attribute][chosen], self.truth[row.attribute][chosen]
                told = np.isfinite(p) & np.broadcast_to(counted, len(self.photos))[chosen]
                right = (p > 0.5) == truth
                of_row = weights[..., chosen]
                if row.certain:
                    told = told & (np.abs(p - 0.5) > CERTAIN - 0.5)
                    scores[row.key] = ratio(of_row @ (told & ~right), of_row @ told)
                    continue
                rates = [
                    ratio(of_row @ (told & right & side), of_row @ (told & side))
                    for side in (truth, ~truth)
                    if (told & side).sum() >= MINIMUM_IMAGES
                ]
                scores[row.key] = (
                    np.mean(rates, axis=0) if rates else np.full(weights.shape[:-1], np.nan)
                )
            return scores

        return statistics

    def measure(self, answers: dict[str, Answer]) -> dict[str, Any]:
        """Score one model.

        Args:
            answers: Predictions by photo key.

        Returns:
            `rows`: by key `value`, its 95 % `interval`, `metric`, the number of photos, of photos
            with a detected face, and of these the numbers labelled yes and no; `gaps`: by
            comparison the `worst` and `best` row, `gap`, `gap_interval`,
            `expected_gap_under_null`, `p_value`.
        """
        probabilities = self.probabilities(answers)
        statistics = self.scores(probabilities)
        values = {
            key: value[0] for key, value in statistics(np.ones((1, len(self.photos)))).items()
        }
        draws = bootstrap_draws(statistics, self.clusters, self.resamples)
        rows, gaps = {}, {}
        for row in self.rows:
            chosen = self.members[row.key]
            asked = [self.photos[i].key for i in chosen if self.photos[i].key in answers]
            p, truth = probabilities[row.attribute][chosen], self.truth[row.attribute][chosen]
            told = np.isfinite(p)
            sides = [int((told & side).sum()) for side in (truth, ~truth)]
            both = min(sides) >= MINIMUM_IMAGES
            accuracy = "balanced_accuracy" if both else "accuracy"
            ends = np.clip(interval_of(draws[row.key], values[row.key]), 0, 1)
            rows[row.key] = {
                "value": values[row.key],
                "interval": ends,
                "metric": "share_wrong" if row.certain else accuracy,
                "num_asked": len(asked),
                "num_found": sum(answers[key] is not None for key in asked),
                "num_yes": sides[0],
                "num_no": sides[1],
            }
            if row.certain:
                rows[row.key]["num_certain"] = int((np.abs(p - 0.5) > CERTAIN - 0.5).sum())
        for gap in dict.fromkeys(row.gap for row in self.rows if row.gap):
            keys = [row.key for row in self.rows if row.gap == gap and np.isfinite(values[row.key])]
            if len(keys) < 2:
                continue
            worst, best = min(keys, key=values.get), max(keys, key=values.get)  # type: ignore[arg-type]
            of_groups = np.stack([draws[key] for key in keys], axis=1)
            size = values[best] - values[worst]
            gaps[gap] = {
                "worst": worst,
                "best": best,
                "gap": size,
                "gap_interval": interval_of(draws[best] - draws[worst], size),
                "expected_gap_under_null": expected_gap_under_null(of_groups),
                "p_value": wald_p_value(of_groups, np.array([values[key] for key in keys])),
            }
        return {"rows": rows, "gaps": gaps}

    def compare(self, answers: dict[str, Answer], others: dict[str, Answer]) -> dict[str, Any]:
        """Compare two models by the paired bootstrap on the photos in which both found a face.

        Returns:
            By row key: `difference` (first minus second), its 95 % `interval` and `p_value`.
        """
        first, second = self.probabilities(answers), self.probabilities(others)
        both = np.array([None not in (answers.get(p.key), others.get(p.key)) for p in self.photos])
        mine, theirs = self.scores(first, both), self.scores(second, both)

        def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
            of_first, of_second = mine(weights), theirs(weights)
            return {key: of_first[key] - of_second[key] for key in of_first}

        values = difference(np.ones((1, len(self.photos))))
        draws = bootstrap_draws(difference, self.clusters, self.resamples)
        return {
            key: {
                "difference": value[0],
                "interval": interval_of(draws[key], value[0]),
                "p_value": p_values(draws[key], value[0]),
            }
            for key, value in values.items()
            if np.isfinite(value[0])
        }


PLOTTED = (
    *("lfw", "fairface", "utkface-from-15", "all-age-faces-from-15", "scut"),
    *(f"fairface/{race}" for race in FAIRFACE_RACES),
    *("women-without-lipstick", "women-from-60", "men-with-wavy-hair", "hats"),
    *("children-10-to-19", "dark-skin"),
)


def draw(result: dict[str, Any]) -> Figure:
    """Plot `Male` by source and group: the models with intervals, the peers as marks.

    Args:
        result: The result as written to JSON.

    Returns:
        A figure with one line per row; the last model is blue, the one before it orange.
    """
    models = [m for m in result["models"] if not m["peer"]]
    peers = [m for m in result["models"] if m["peer"]]
    shown = [key for key in PLOTTED if key in result["rows"]]
    places = {key: -place for place, key in enumerate(shown)}
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.3 + 0.32 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        colors = [GRAY] * len(models)
        colors[-2:] = [ORANGE, BLUE][-len(models) :]
        for number, (model, color) in enumerate(zip(models, colors, strict=True)):
            points = [
                (100 * s["value"], places[key], 100 * np.array(s["interval"]))
                for key in shown
                if (s := model["rows"].get(key)) and s["value"] is not None
            ]
            if not points:
                continue
            value, y, ends = (np.array(part) for part in zip(*points, strict=True))
            offset = 0.13 * ((len(models) - 1) / 2 - number)
            spread = np.abs(ends.T - value)
            label = f"model {model['name']}"
            axes.errorbar(
                *(value, y + offset), xerr=spread, fmt="o", color=color, capsize=2, label=label
            )
        for peer, mark in zip(peers, ("x", "+", "2", "1", "3"), strict=False):
            points = [
                (100 * s["value"], places[key])
                for key in shown
                if (s := peer["rows"].get(key)) and s["value"] is not None
            ]
            if points:
                value, y = zip(*points, strict=True)
                axes.plot(value, y, mark, color="black", markersize=7, label=peer["name"])
        axes.set_yticks(list(places.values()), [result["rows"][key]["title"] for key in shown])
        axes.grid(color="#e2e8f0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("right about Male, balanced over men and women, %")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def markdown(result: dict[str, Any]) -> str:
    """Format the rows as a Markdown table with one column per model."""
    lines = [
        f"| % | photos | {' | '.join(m['name'] for m in result['models'])} |",
        "| :--- | ---: |" + " ---: |" * len(result["models"]),
    ]
    for key, row in result["rows"].items():
        cells = []
        for model in result["models"]:
            s = model["rows"].get(key)
            told = s and s["value"] is not None
            cells.append(
                f"{100 * s['value']:.1f} ({100 * s['interval'][0]:.1f} to "
                f"{100 * s['interval'][1]:.1f})"
                if told
                else "–"
            )
        lines.append(f"| {row['title']} | {row['num_photos']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def load_peer(path: Path) -> dict[str, Any]:
    """Read a peer's predictions.

    Raises:
        UserError: The file was not written by `peers.py`.
    """
    try:
        peer = json.loads(path.read_text(encoding="utf-8"))
        return {"name": peer["name"], "version": peer["version"], "answers": dict(peer["answers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no answers of benchmarks/peers.py: {error}") from error


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Predict, score and compare.

    Args:
        args: The command line.

    Returns:
        `rows` (title, attribute, number of photos), `models` (the scores of each; the last one is
        also compared `against` every other), and `resamples`.
    """
    photos = read_photos(args.faces, args.lfw_labels, args.limit)
    table = Table(photos, table_rows(), args.bootstrap)
    answered = [answer_photos(model, photos, args.runs) for model in args.models]
    peers = [load_peer(path) for path in args.peers]
    subject = answered[-1]
    models = []
    for model in [*answered, *peers]:
        answers = model.pop("answers")
        entry = {**model, "peer": model in peers, **table.measure(answers)}
        models.append((entry, answers))
    for entry, answers in models:
        if entry["name"] != subject["name"]:
            subject_answers = models[len(answered) - 1][1]
            entry["subject_against_it"] = table.compare(subject_answers, answers)
    return jsonable(
        {
            "subject": subject["name"],
            "resamples": args.bootstrap,
            "rows": {
                row.key: {
                    "title": row.title,
                    "attribute": row.attribute,
                    "gap": row.gap,
                    "num_photos": len(table.members[row.key]),
                }
                for row in table.rows
            },
            "models": [entry for entry, _ in models],
        }
    )


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, write, and print the table.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The exit code: 0, or 2 if a required input is missing.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_photo_options(parser)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="the last is the subject"
    )
    parser.add_argument("--peers", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--runs", type=Path, default=Path("runs/fairness"), metavar="DIR")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("results/fairness.json"))
    args = parser.parse_args(arguments if arguments is None else list(arguments))
    try:
        result = measure(args)
        write_whole(args.output, json.dumps(result, indent=1, allow_nan=False) + "\n")
        save_figure(draw(result), args.output.parent, args.output.stem)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(result))
    return 0


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the photos."""
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="the sets")
    parser.add_argument("--lfw-labels", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--limit", type=int, metavar="N", help="photos a set at most, for a trial")


if __name__ == "__main__":
    sys.exit(main())
