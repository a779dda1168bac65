"""Downloads as people have them, and images that no one should open."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from label2label.errors import UserError
from PIL import Image
from preparation.sources import BadImageError, Download

from .conftest import Run, draw_jpeg

FILES = {"faces/a.jpg": draw_jpeg(0), "faces/b.jpg": draw_jpeg(1), "labels.txt": b"a 1\nb 0\n"}


def write_zip(target, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def build(kind: str, folder: Path) -> Path:
    """A download of one kind; returns what to give as the source."""
    folder.mkdir()
    if kind in ("folder", "folder itself", "folders in folders"):
        for name, data in FILES.items():
            path = folder / ("x/y" if kind == "folders in folders" else "") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / "faces" if kind == "folder itself" else folder
    inner = io.BytesIO()
    write_zip(
        inner,
        FILES
        if kind == "zip of another name"
        else {k[6:]: v for k, v in FILES.items() if "/" in k},
    )
    if kind == "zip in a zip":
        write_zip(
            folder / "archive.zip",
            {"Img/faces.zip": inner.getvalue(), "labels.txt": FILES["labels.txt"]},
        )
        return folder
    if kind == "tar.gz":
        with tarfile.open(folder / "faces.tar.gz", "w:gz") as archive:
            for name, data in FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return folder
    path = folder / ("faces.zip" if kind.startswith("zip itself") else "archive.zip")
    path.write_bytes(inner.getvalue())
    return path if kind == "zip itself" else folder


KINDS = [
    "folder",
    "folder itself",
    "folders in folders",
    "zip itself",
    "zip of another name",
    "zip in a zip",
    "tar.gz",
]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_found_and_read(kind: str, tmp_path: Path):
    download = Download(build(kind, tmp_path / "source"))
    images = download.images("faces")
    assert list(images) == ["a.jpg", "b.jpg"]
    assert images.read("b.jpg") == FILES["faces/b.jpg"]
    assert "c.jpg" not in images
    if kind not in ("folder itself", "zip itself", "tar.gz"):
        assert [line for _, line in download.lines("labels.txt")] == ["a 1", "b 0"]


def test_the_best_root_wins_and_several_are_read_together(tmp_path: Path):
    for folder, name in (("part1", "a.jpg"), ("part2", "b.jpg"), ("crops", "c.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(draw_jpeg(0))
    download = Download(tmp_path)
    assert list(download.images("crops", ("part1", "part2"))) == ["c.jpg"]
    assert list(download.images("other", ("part1", "part2"))) == ["a.jpg", "b.jpg"]
    with pytest.raises(UserError, match=r"does not hold other/ or other\.zip"):
        download.images("other")


def test_damaged_archives_are_refused_and_damaged_members_are_bad_images(tmp_path: Path):
    write_zip(tmp_path / "faces.zip", FILES)
    whole = (tmp_path / "faces.zip").read_bytes()
    (tmp_path / "faces.zip").write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"faces\.zip is not a complete archive: download it again"):
        Download(tmp_path).images("faces")
    start = whole.index(b"a.jpg") + 100
    (tmp_path / "faces.zip").write_bytes(whole[:start] + bytes(50) + whole[start + 50 :])
    images = Download(tmp_path).images("faces")
    with pytest.raises(BadImageError, match="damaged in the archive"):
        images.read("a.jpg")
    assert images.read("b.jpg") == FILES["faces/b.jpg"]


def test_a_pipe_and_hidden_files_are_no_images(tmp_path: Path):
    (tmp_path / "faces").mkdir()
    os.mkfifo(tmp_path / "faces/pipe.jpg")
    (tmp_path / "faces/._a.jpg").write_bytes(b"resource fork")
    (tmp_path / "faces/a.jpg").write_bytes(draw_jpeg(0))
    assert list(Download(tmp_path).images("faces")) == ["a.jpg"]


def test_hostile_images_are_skipped_and_start_no_program(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    eps, avif = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (32, 32)).save(eps, "EPS")
    Image.effect_noise((64, 64), 90).convert("RGB").save(avif, "AVIF")
    files = {"22_0_1_2017.jpg": eps.getvalue(), "30_0_2_1.jpg": draw_jpeg(0)}
    for number in range(60):  # about one of ten raises RuntimeError when it is decoded
        mutant = bytearray(avif.getvalue())
        for place in range(number * 7 % 200 + 100, len(mutant), 97):
            mutant[place] ^= 0xFF
        files[f"23_0_1_{number}.jpg"] = bytes(mutant)
    write_zip(tmp_path / "crop_part1.zip", {f"crop_part1/{name}": files[name] for name in files})
    options = ("--source", tmp_path, "--output", tmp_path / "out", "--max-bad", "61")
    assert run("by_name", "utkface", *options) == 0
    assert not (tmp_path / "started").exists()
    assert "22_0_1_2017.jpg" in (tmp_path / "out/skipped.csv").read_text()
