"""Measure for whom models are right: `Male`, `Young` and `Wearing_Mask` by source, group and age.

    python benchmarks/fairness.py --faces ~/.cache/faces --lfw-labels lfw_labels.csv \\
        --models OLD NEW --peers runs/peers/*.json

Photo in, as users give it: each test photo is read, its faces are found and aligned, and the face
nearest to the middle is asked for. FACES holds the publishers' layouts of CelebA, LFWA, FairFace,
UTKFace, All-Age-Faces, SCUT-FBP5500 and the masks, as `datasets_scripts/` reads them; of each only
the test part is read, by the same rule as there (of LFW its test persons). `--peers` are answers
of other software on the same photos, as `peers.py` writes them.

A model's answers are kept under `--runs` and not computed again while its weights and the photos
are the same. Written: `results/fairness.json` and a plot, `results/fairness.svg`. Intervals are of
95 %, by the bootstrap over persons where they are known, else over photos.
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
CERTAIN = 0.9  # probability of an answer that should be right
FAIRFACE_RACES = (
    *("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian"),
    "Middle Eastern",
)
MINIMUM_IMAGES = 10  # with an answer, of each sex, for a balanced accuracy


@dataclass(frozen=True)
class TestPhoto:
    """A photo of one person of a test part, and what its publisher says of the person.

    Args:
        source: name of the set.
        name: of the photo in the set.
        file: where it is; with `archive`, the name in that zip file.
        person: who is on it, None where unknown.
        race: as the set names it.
        age: in years; of an age range its lower end.
        labels: attribute to label, as far as known.
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
        """Its name among the photos of all sets."""
        return f"{self.source}/{self.name}"

    def read(self) -> np.ndarray:
        """Its pixels, uint8 RGB (height, width, 3)."""
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
    """Attributes of every image: a text file of CelebA's or LFWA's form."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split() if len(lines[0].split()) > 1 else lines[1].split()
    rows = (line.split() for line in lines if len(line.split()) == len(names) + 1)
    return {
        row[0]: dict(zip(names, (value == "1" for value in row[1:]), strict=True)) for row in rows
    }


def read_lfw(root: Path, labels: Path) -> list[TestPhoto]:
    """LFW's test persons: all photos of women, and as many of men.

    Args:
        root: of LFWA, with `lfw-deepfunneled` and `lfw_att_40.txt`.
        labels: CSV with `image` and `male`, checked by hand (LFWA's own `Male` is noisy).
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
    """Draw photos by a hash of their names: of a smaller limit all are among those of a larger."""
    return sorted(photos, key=lambda p: hashlib.sha256(p.key.encode()).digest())[:limit]


def read_fairface(root: Path) -> list[TestPhoto]:
    """FairFace's published validation part."""
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
    """UTKFace's test part, labels in the names."""
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
    """All-Age-Faces' test part: NNNNNAXX, of which the number tells the sex and XX the age."""
    photos = []
    for name in _test_names(root):
        number, _, age = Path(name).stem.partition("A")
        years = int(age)
        labels = {"Male": int(number) > 7380, "Young": years < YOUNG_BELOW}
        file = str(root / "images" / name)
        photos.append(TestPhoto("all-age-faces", name, file, age=years, labels=labels))
    return photos


def read_scut(root: Path) -> list[TestPhoto]:
    """SCUT-FBP5500's test part: A or C (Asian, Caucasian) and F or M begin the name."""
    return [
        TestPhoto(
            *("scut", name, str(root / "images" / name)),
            race={"A": "Asian", "C": "Caucasian"}[name[0]],
            labels={"Male": name[1] == "M"},
        )
        for name in _test_names(root)
    ]


def read_masks(root: Path) -> list[TestPhoto]:
    """The masks' test part: the folder tells."""
    return [
        TestPhoto(
            *("masks", name, str(root / "images" / name)),
            labels={"Wearing_Mask": name.startswith("with_mask/")},
        )
        for name in _test_names(root)
    ]


def read_celeba(root: Path) -> list[TestPhoto]:
    """CelebA's official test part, as far as it is there; its photos are aligned."""
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
    """Find the test photos of all sets.

    Args:
        faces: folder of the publishers' layouts.
        lfw_labels: as for `read_lfw`.
        limit: photos a set at most, drawn by a hash of their names; all by default.

    Returns:
        Photos, set by set; a set that is not there is named on standard error.

    Raises:
        UserError: no set is there, or one is damaged.
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
    """Of what is found in a photo, the face nearest to its middle."""
    boxes = [Face(tuple(face["box"]), 1.0) for face in faces]
    return faces[boxes.index(choose_face(boxes, photo))] if boxes else None


def answer_photos(model: str, photos: Sequence[TestPhoto], runs: Path) -> dict[str, Any]:
    """Ask a model about photos; what it answered before is read instead.

    Args:
        model: a folder, a Hub id, an ONNX file or a shipped name.
        photos: to ask about.
        runs: folder of the answers.

    Returns:
        `name`, `weights_sha256` and `answers`, one `Answer` by photo's key.

    Raises:
        UserError: the model cannot be loaded, or a photo cannot be read.
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
    """A line of the table.

    Args:
        key: in the JSON file.
        title: for people.
        chosen: which photos count.
        attribute: which answer is judged.
        certain: whether only answers above 0.9 count, and how many of them are wrong is told.
        gap: the rows of one comparison of groups have the same, None for others.
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
    """List the rows of the table, in its order."""
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
        Row(  # no set labels long hair
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
    """What every model answered about the photos of every row, and how right that is.

    Args:
        photos: of all sets.
        rows: of the table.
        resamples: of the bootstrap.
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
        """(photos,) of each attribute, NaN where no face was found or the model does not tell."""
        told = [answers.get(photo.key) or {} for photo in self.photos]
        return {name: np.array([a.get(name, np.nan) for a in told], float) for name in ASKED}

    def scores(
        self, probabilities: dict[str, np.ndarray], counted: np.ndarray | bool = True
    ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Statistics for the bootstrap: image weights (resamples, photos) to a score by row."""

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
            answers: by photo's key.

        Returns:
            `rows`: by key `value`, its 95 % `interval`, `metric`, in how many photos a face was
            asked for and found, and how many of these are labelled yes and no; `gaps`: by
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
        """Compare two models on the photos in which both found a face, by the paired bootstrap.

        Returns:
            By row's key `difference` (first minus second), its 95 % `interval` and `p_value`.
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
    """Draw `Male` by source and group: the models with intervals, the peers as marks.

    Args:
        result: as it is written.

    Returns:
        A figure, one line a row; the last model is blue, the one before it orange.
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
    """Lay the rows out as a Markdown table, one column a model."""
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
    """Read a peer's answers.

    Raises:
        UserError: the file is none that `peers.py` wrote.
    """
    try:
        peer = json.loads(path.read_text(encoding="utf-8"))
        return {"name": peer["name"], "version": peer["version"], "answers": dict(peer["answers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no answers of benchmarks/peers.py: {error}") from error


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Answer, score and compare.

    Args:
        args: the command line.

    Returns:
        `rows` (title, attribute, number of photos), `models` (each `measure`d, the last one, which
        is the subject, first compared `against` every other), and `resamples`.
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
        arguments: of the command line; the process's own by default.

    Returns:
        0, or 2 where something that it needs is not there.
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
    """Add the options that say which photos are read."""
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="the sets")
    parser.add_argument("--lfw-labels", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--limit", type=int, metavar="N", help="photos a set at most, for a trial")


if __name__ == "__main__":
    sys.exit(main())
