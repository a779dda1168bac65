"""`label2label label`: every image once, whatever interrupts it; and batches for other engines."""

import errno
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label2label.checkpoints import default_checkpoint
from label2label.cli import main
from label2label.errors import UserError
from label2label.prediction import labelling
from label2label.prediction.labelling import BatchLabeller, list_collection
from PIL import Image

NUMBER, SHARD = 23, 5  # images, and images a shard: the last one has 3


@pytest.fixture(scope="session")
def crops(tmp_path_factory):
    """A folder of 22 small images and one file that is none."""
    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(0)
    for i in range(NUMBER - 1):
        colours = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((40, 48)).save(folder / f"{i:02d}.png")
    (folder / "07b.png").write_text("no image")
    return folder


@pytest.fixture
def label(exported, capsys):
    """Runs the command on crops; returns its exit code, standard output and standard error."""

    def run(data, output, *more, align="--no-align"):
        code = main(
            [
                *("label", "--model", str(exported), "--data", str(data)),
                *("--output", str(output), "--shard-size", str(SHARD), *filter(None, [align])),
                *map(str, more),
            ]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def whole(label, crops, tmp_path):
    """The rows of a run that nothing interrupts."""
    assert label(crops, tmp_path / "whole")[0] == 0
    return read_rows(tmp_path / "whole")


def read_rows(folder):
    shards = sorted((folder / "data").glob("labels-*.parquet"))
    return pa.concat_tables([pq.read_table(shard) for shard in shards])


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_image_is_a_row_in_order_and_what_is_none_says_why(whole, crops):
    rows = whole.to_pylist()
    assert [row["index"] for row in rows] == list(range(NUMBER))
    assert [row["image"] for row in rows] == sorted(file.name for file in crops.iterdir())
    broken = [row for row in rows if row["error"]]
    assert [row["image"] for row in broken] == ["07b.png"]
    assert broken[0]["error"] == "not an image, or of a format that cannot be read"
    assert broken[0]["face"] is broken[0]["box"] is broken[0]["Smiling"] is None
    others = [row for row in rows if not row["error"]]
    assert {row["face"] for row in others} == {0}
    assert others[0]["box"] == [0, 0, 40, 48]
    assert len({row["Smiling"] for row in others}) > 10


def test_rows_are_what_predict_says(whole, crops, exported):
    from label2label.prediction.predictor import AttributePredictor

    predictor = AttributePredictor.from_pretrained(exported, align=False)
    (face,) = predictor(crops / "03.png")
    row = whole.to_pylist()[3]
    assert {name: row[name] for name in face["attributes"]} == pytest.approx(
        face["attributes"], abs=2e-4
    )


def test_faces_of_a_photo_are_rows_and_a_photo_without_one_is_a_row(label, portrait, tmp_path):
    pair = Image.new("RGB", (1024, 600))
    for x in (0, 512):
        pair.paste(portrait, (x, 0))
    (tmp_path / "photos").mkdir()
    pair.save(tmp_path / "photos" / "a.png")
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "photos" / "b.png")
    code, out, _ = label(tmp_path / "photos", tmp_path / "out", align=None)
    assert code == 0
    assert "2 images, 2 faces; without a face: 1, not readable: 0" in out
    assert "images/s" in out
    rows = read_rows(tmp_path / "out").to_pylist()
    assert [(row["index"], row["face"]) for row in rows] == [(0, 0), (0, 1), (1, None)]
    assert rows[0]["box"][2] < 512 < rows[1]["box"][0]
    assert rows[2]["error"] is None


KILLED = """
import os, signal, sys
from label2label.cli import main
from label2label.errors import UserError
from label2label.prediction.backends import OnnxBackend

def die_at(function, number, after):
    calls = 0
    def counted(*arguments):
        nonlocal calls
        calls += 1
        if calls == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments)
        if calls == number and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return counted

where, number, after = {where!r}
if where == 'rename':
    os.replace = die_at(os.replace, number, after)
else:
    OnnxBackend.predict = die_at(OnnxBackend.predict, number, after)
main({arguments!r})
"""


@pytest.mark.parametrize(
    ("where", "shards"),
    [
        (("rename", 1, False), 0),  # the list is written and has no name yet
        (("rename", 3, False), 1),  # the second shard is written and has no name yet
        (("rename", 3, True), 2),
        (("predict", 3, False), 2),  # in the middle of the third shard
        (("rename", 7, False), 5),  # all shards are there, the card is not
    ],
)
def test_killed_anywhere_and_run_again_no_row_is_lost_or_doubled(
    where, shards, label, whole, crops, exported, tmp_path
):
    output = tmp_path / "killed"
    arguments = ["label", "--model", str(exported), "--data", str(crops), "--output", str(output)]
    arguments += ["--no-align", "--shard-size", str(SHARD)]
    program = KILLED.format(where=where, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    finished = sorted(output.glob("data/labels-*.parquet"))
    assert len(finished) == shards
    times = [shard.stat().st_mtime_ns for shard in finished]
    code, out, err = label(crops, output)
    assert code == 0, err
    assert read_rows(output).equals(whole)
    assert files_of(output) == files_of(tmp_path / "whole")
    assert [shard.stat().st_mtime_ns for shard in finished] == times
    left = NUMBER - SHARD * shards
    assert (f"labelled {left} images" in out) == (left > 0)


def test_finished_run_is_left_alone(label, whole, crops, tmp_path):
    code, out, _ = label(crops, tmp_path / "whole")
    assert code == 0
    assert "labelled" not in out
    assert "23 images, 22 faces; without a face: 0, not readable: 1" in out
    assert read_rows(tmp_path / "whole").equals(whole)


def test_images_that_come_or_go_while_interrupted_do_not_shift_the_others(
    label, whole, crops, tmp_path, monkeypatch
):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in crops.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    write = labelling.write_shard

    def write_two_shards(path, *more):
        if path.name.startswith("labels-00002"):
            raise KeyboardInterrupt
        write(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(labelling, "write_shard", write_two_shards)
        assert label(copy, tmp_path / "out")[0] == 130
    (copy / "00a.png").write_bytes((copy / "00.png").read_bytes())
    (copy / "20.png").unlink()
    assert label(copy, tmp_path / "out")[0] == 0
    rows, expected = read_rows(tmp_path / "out").to_pylist(), whole.to_pylist()
    gone = [row["image"] for row in rows].index("20.png")
    assert rows[gone]["error"] == "no such file"
    assert rows[:gone] + rows[gone + 1 :] == expected[:gone] + expected[gone + 1 :]


def test_a_second_run_of_the_same_output_is_refused_while_the_first_one_runs(
    label, whole, crops, exported, tmp_path
):
    program = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True)\n"
        "time.sleep(60)"
    )
    lock = tmp_path / "whole" / ".label2label" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        code, _, err = label(crops, tmp_path / "whole")
        assert code == 2
        assert "another `label2label label` is writing" in err
        assert err.count("\n") == 1
    finally:
        holder.kill()
        holder.wait()
    assert label(crops, tmp_path / "whole")[0] == 0  # a killed process holds no lock
    assert read_rows(tmp_path / "whole").equals(whole)


@pytest.fixture
def dataset(crops, tmp_path):
    """A prepared dataset of the same images in two splits, one of them null."""
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    files = sorted(crops.iterdir())
    for split, members in (("test", files[:10]), ("train", files[10:])):
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in members]
        if split == "train":
            images[3] = None
        table = pa.table({"image": images, "Smiling": [True] * len(images)})
        path = tmp_path / "dataset" / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(table, path, row_group_size=4)
    return tmp_path / "dataset"


def test_prepared_dataset_is_labelled_by_row(label, whole, dataset, tmp_path):
    code, _, err = label(dataset, tmp_path / "out", "--batch-size", "3")
    assert code == 0, err
    rows, expected = read_rows(tmp_path / "out").to_pylist(), whole.to_pylist()
    assert [row["split"] for row in rows] == ["test"] * 10 + ["train"] * 13
    assert rows[13]["error"] == "the file is empty"
    assert rows[13]["image"] == "train-00000-of-00001.parquet/0/3"
    for i in {*range(NUMBER)} - {13}:
        assert rows[i]["image"] == expected[i]["image"]
        assert rows[i]["error"] == expected[i]["error"]
        if expected[i]["Male"] is not None:
            assert rows[i]["Male"] == pytest.approx(expected[i]["Male"], abs=2e-4)


def test_parquet_of_paths_is_read_from_the_files(label, crops, whole, tmp_path):
    images = [{"bytes": None, "path": str(file)} for file in sorted(crops.iterdir())[:3]]
    images += [{"bytes": None, "path": "beside.png"}]
    shutil.copy(crops / "00.png", tmp_path / "beside.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind)}), tmp_path / "paths.parquet")
    assert label(tmp_path / "paths.parquet", tmp_path / "out")[0] == 0
    rows, expected = read_rows(tmp_path / "out").to_pylist(), whole.to_pylist()
    for row, i in zip(rows, [0, 1, 2, 0], strict=True):
        assert row["Male"] == pytest.approx(expected[i]["Male"], abs=2e-4)


def test_datasets_map_labels_columns_by_the_batch(crops, whole, exported):
    files = sorted(crops.iterdir())
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files[:8]]
    dataset = datasets.Dataset.from_dict(
        {"image": images, "key": list("abcdefgh")},
        features=datasets.Features(
            {"image": datasets.Image(decode=False), "key": datasets.Value("string")}
        ),
    )
    labelled = dataset.map(
        BatchLabeller(name=exported, align=False),
        batched=True,
        batch_size=3,
        remove_columns=dataset.column_names,
    )
    rows, expected = labelled.to_list(), whole.to_pylist()
    assert [row["key"] for row in rows] == list("abcdefgh")
    for row, other in zip(rows, expected, strict=False):
        assert row["box"] == other["box"]
        assert row["Male"] == pytest.approx(other["Male"], abs=2e-4)


@pytest.mark.slow
def test_ray_data_labels_columns_by_two_workers(crops, whole, exported, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    from label_on_ray import label_on_ray

    paths = os.pathsep.join(sys.path)
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        label_on_ray(
            str(crops), str(tmp_path / "labels"), workers=2, model=str(exported), align=False
        )
    finally:
        ray.shutdown()
    rows = pa.concat_tables(pq.read_table(f) for f in (tmp_path / "labels").glob("*.parquet"))
    rows = sorted(rows.to_pylist(), key=lambda row: row["path"])
    expected = whole.to_pylist()
    assert [os.path.basename(row["path"]) for row in rows] == [row["image"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["error"] == other["error"]
        if other["Male"] is not None:
            assert row["Male"] == pytest.approx(other["Male"], abs=2e-4)


def test_batch_labeller_takes_what_columns_hold_and_says_which_column_is_missing(crops, exported):
    labeller = pickle.loads(pickle.dumps(BatchLabeller(name=exported, align=False)))
    path = sorted(crops.iterdir())[0]
    values = [path.read_bytes(), str(path), {"bytes": path.read_bytes()}, Image.open(path), None]
    table = labeller({"image": values, "id": np.arange(5)})
    assert table.column_names[:6] == ["id", "face", "box", "score", "error", "present"]
    assert table["present"][0].as_py() == table["present"][3].as_py() is not None
    assert table["present"][4].as_py() is None
    assert len(set(table["Male"].to_pylist()[:4])) == 1
    assert table["error"].to_pylist()[4] == "the file is empty"
    with pytest.raises(UserError, match="no column image: there are photo"):
        labeller({"photo": values})


def test_glob_takes_photos_or_parquet_files(label, crops, dataset, tmp_path):
    assert label(crops / "1?.png", tmp_path / "photos")[0] == 0
    names = [row["image"] for row in read_rows(tmp_path / "photos").to_pylist()]
    assert names == [f"{i}.png" for i in range(10, 20)]
    assert label(dataset / "**" / "test-*.parquet", tmp_path / "split")[0] == 0
    assert len(read_rows(tmp_path / "split")) == 10


@pytest.mark.parametrize("pattern", ["**", "**/*", "*"])
def test_glob_that_matches_folders_and_what_is_in_them_takes_every_photo_once(
    pattern, crops, tmp_path
):
    names = ["a.png", "b/c.png", "b/d/e.png", "b-/f.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(crops / "00.png", tmp_path / name)
    found = [location.name for location in list_collection(str(tmp_path / pattern))]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_photos_that_are_out_of_reach_are_listed_and_say_so_later(
    number, label, crops, tmp_path, monkeypatch
):
    reach = os.stat

    def fail(path, *arguments, **options):
        if str(path).endswith("03.png"):
            raise OSError(number, os.strerror(number), str(path))
        return reach(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", fail)
    assert label(crops, tmp_path / "out")[0] == 0
    rows = read_rows(tmp_path / "out").to_pylist()
    assert len(rows) == NUMBER
    assert rows[3]["error"] == f"cannot be read: {os.strerror(number)}"


def test_names_that_are_no_text_and_folders_that_look_like_globs_are_read(label, crops, tmp_path):
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    for name in (b"line\nbreak.png", b"caf\xe9.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write((crops / "00.png").read_bytes())
    code, _, err = label(folder, tmp_path / "out")
    assert code == 0, err
    rows = read_rows(tmp_path / "out").to_pylist()
    assert [row["image"] for row in rows] == ["caf\\udce9.png", "line\nbreak.png"]
    assert [row["error"] for row in rows] == [None, None]


def test_output_loads_as_a_dataset(whole, tmp_path):
    loaded = datasets.load_dataset(str(tmp_path / "whole"), split="train")
    assert len(loaded) == NUMBER
    assert loaded[0]["Smiling"] == pytest.approx(whole.to_pylist()[0]["Smiling"])


def write_other(folder, crops):
    folder.mkdir()
    (folder / "thesis.txt").touch()
    return [crops, folder], "contains other files (thesis.txt): give a new folder"


def write_file(folder, crops):
    folder.touch()
    return [crops, folder], "is a file: give a folder"


def give_nothing(folder, crops):
    return [folder.parent / "*.none", folder], "no images there"


def give_missing(folder, crops):
    return [folder.parent / "gone", folder], "no images there"


def give_no_images(folder, crops):
    path = folder.parent / "numbers.parquet"
    pq.write_table(pa.table({"image": [1, 2]}), path)
    return [path, folder], "has no column `image` of encoded images"


def give_no_parquet(folder, crops):
    path = folder.parent / "broken.parquet"
    path.write_bytes(b"PAR1 or not")
    return [path, folder], "is not a Parquet file that can be read"


@pytest.mark.parametrize(
    "prepare",
    [write_other, write_file, give_nothing, give_missing, give_no_images, give_no_parquet],
)
def test_what_will_not_do_is_one_line_and_writes_nothing(prepare, label, crops, tmp_path):
    arguments, message = prepare(tmp_path / "out", crops)
    before = files_of(tmp_path)
    code, _, err = label(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert files_of(tmp_path) == before


def test_run_of_other_settings_is_not_mixed_in(label, whole, crops, model_folder, tmp_path):
    for arguments, name in (
        (["--shard-size", 7], "shard_size"),
        (["--model", model_folder], "model"),
    ):
        code, _, err = label(crops, tmp_path / "whole", *arguments)
        assert code == 2
        assert f"contains labels of another run ({name} was" in err
    assert read_rows(tmp_path / "whole").equals(whole)


def test_a_run_goes_on_in_the_runtime_that_began_it(label, crops, tmp_path):
    # The folder holds the same model as INT8 for ONNX Runtime, and in float for PyTorch.
    arguments = (crops, tmp_path / "run", "--model", default_checkpoint())
    assert label(*arguments)[0] == 0
    next((tmp_path / "run/data").glob("labels-00001-*")).unlink()
    code, _, err = label(*arguments, "--backend", "torch")
    assert code == 2
    assert "contains labels of another run (backend was onnx, not torch)" in err
    assert label(*arguments)[0] == 0


def test_dataset_that_changed_since_it_was_listed_is_one_line(label, dataset, tmp_path):
    assert label(dataset, tmp_path / "out")[0] == 0
    (tmp_path / "out" / "data" / "labels-00004-of-00005.parquet").unlink()
    image = io.BytesIO()
    Image.new("RGB", (40, 40)).save(image, "PNG")
    pq.write_table(
        pa.table({"image": [{"bytes": image.getvalue(), "path": "x"}]}),
        dataset / "data" / "train-00000-of-00001.parquet",
    )
    code, _, err = label(dataset, tmp_path / "out")
    assert code == 2
    assert "changed or is damaged" in err
    assert not list((tmp_path / "out" / "data").glob(".*"))
