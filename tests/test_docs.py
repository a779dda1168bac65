"""The commands that README.md and docs/ show run, in order, on small data; trainings briefly."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What sets a machine up: CI itself is their test.
SETUP = re.compile(r"make (demo|test|lint)\b|pip install\b")
PEOPLE = {0: 40, 1: 8, 2: 8}  # images by split: training, validation, test
# What most pages take for granted; those that show it start without.
PREPARATION = [
    ["label2label", "convert", "mobilefacenet_scripted.pt", "runs/backbone"],
    ["python", "datasets_scripts/celeba.py", "--source", "CELEBA", "--output", "data/celeba"],
]
# What takes long is run shorter; before the arguments that the page shows, which therefore win.
SHORTER = {
    "label2label train": "--set epochs=1 --set workers=0 --set batch_size=8",
    "python benchmarks/speed.py": "--quick",
}
# Of the seven sets of the merge one is drawn here.
STAND_INS = {
    **{
        f"--recipe {name}": f"--recipe {name} --set vocabulary={vocabulary} --set data=data/celeba"
        for name, vocabulary in (
            *(("merged", "celeba-40"), ("tiny", "celeba-40"), ("korean11", "korean-11")),
        )
    },
    "data/merged": "data/celeba",
}


def draw_face(rng: np.random.Generator) -> Image.Image:
    """Coarse random colours, as large as CelebA's small images; no two are near-duplicates."""
    return Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((89, 109))


def draw_celeba(folder: Path) -> None:
    """A folder in CelebA's official layout, of drawn images and drawn labels."""
    rng = np.random.default_rng(0)
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    attributes, people, partition = [], [], []
    for split, count in PEOPLE.items():
        for _ in range(count):
            name = f"{len(people) + 1:06}.jpg"
            draw_face(rng).save(images / name)
            values = rng.choice([-1, 1], len(CELEBA_ATTRIBUTES))
            attributes.append(f"{name} {' '.join(map(str, values))}")
            people.append(f"{name} {len(people) + 1}")
            partition.append(f"{name} {split}")
    head = [str(len(people)), " ".join(CELEBA_ATTRIBUTES)]
    for file, lines in (
        ("list_attr_celeba.txt", head + attributes),
        ("identity_CelebA.txt", people),
        ("list_eval_partition.txt", partition),
    ):
        (folder / file).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def environment(shared, tmp_path_factory):
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HOME": str(tmp_path_factory.mktemp("cache")),
        "HF_HUB_OFFLINE": "1",
        "LABEL2LABEL_FACE_DETECTOR": str(shared / "weights" / "face_detection_yunet_2026may.onnx"),
    }


@pytest.fixture(scope="module")
def materials(shared, environment, tmp_path_factory):
    """A checkout's programs, and the files that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("datasets_scripts", "benchmarks", "spaces_app"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "holiday").mkdir()
    matplotlib = pytest.importorskip("matplotlib")
    photo = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    shutil.copy(photo, folder / "photo.jpg")
    shutil.copy(photo, folder / "holiday" / "beach.jpg")
    Image.open(photo).crop((150, 100, 380, 330)).save(folder / "crop.png")
    clip = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (512, 600)
    )
    for _ in range(5):
        clip.write(cv2.imread(str(photo))[:600, :512])
    clip.release()
    weights = shared / "weights" / "mobilefacenet_ms1m_relu6.pt"
    shutil.copy(weights, folder / "mobilefacenet_scripted.pt")
    draw_celeba(folder / "CELEBA")
    for command in PREPARATION:
        run(command, folder, environment)
    return folder


@pytest.fixture
def sandbox(materials, tmp_path):
    """The materials of one page, which may write among them."""
    return Path(shutil.copytree(materials, tmp_path / "sandbox", symlinks=True))


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def shown(page: Path) -> list[list[str]]:
    """The commands and Python examples of one page, in its order."""
    text = page.read_text(encoding="utf-8")
    blocks = [
        (match.start(), ["bash", "-euo", "pipefail", "-c", match[1]])
        for match in COMMANDS.finditer(text)
        if not SETUP.search(match[1])
    ]
    blocks += [(match.start(), [sys.executable, "-c", match[1]]) for match in PYTHON.finditer(text)]
    commands = []
    for _, (*start, text) in sorted(blocks):
        for command, options in SHORTER.items():
            text = text.replace(command, f"{command} {options}")
        for name, other in STAND_INS.items():
            text = text.replace(name, other)
        commands.append([*start, text])
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_runs(page, sandbox, environment):
    if "--web" in page.read_text(encoding="utf-8") and not shutil.which("npm"):
        pytest.skip("no npm, which fetches what the page in the browser runs on")
    if "datasets_scripts/celeba.py" in page.read_text(encoding="utf-8"):
        for made in ("data", "runs"):
            shutil.rmtree(sandbox / made)
    for command in shown(page):
        run(command, sandbox, environment)


def test_the_readmes_example_prints_what_it_shows(environment, tmp_path):
    text = PAGES[0].read_text(encoding="utf-8")
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()
    matplotlib = pytest.importorskip("matplotlib")
    shutil.copy(
        Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"), tmp_path / "photo.jpg"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == output, done.stderr


def test_no_page_shows_a_command_that_is_not_tested():
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for page in PAGES:
        for language, text in fence.findall(page.read_text(encoding="utf-8")):
            assert language, f"{page.name}: name the language of the block {text[:40]!r}"
            # More machines than a test has, and raw data sets that have tests of their own.
            if language != "bash" and not re.search("--num_machines|--faces FACES", text):
                assert not re.search(
                    r"^(label2label|python|accelerate|torchrun) ", text, re.MULTILINE
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
