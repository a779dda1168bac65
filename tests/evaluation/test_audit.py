import base64
import csv
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest
import torch
from label2label.cli import main
from label2label.errors import printable
from label2label.evaluation import format_p_value
from label2label.evaluation.audit import prepare_photos
from label2label.evaluation.predictions import Predictions
from label2label.evaluation.report import html_page
from label2label.evaluation.scores import compare_predictions, score_predictions
from label2label.faces import detection
from label2label.prediction.backends import Preprocessing, load_model
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(autouse=True)
def offline_detector(monkeypatch):
    """No test here depends on the network: the cascade that OpenCV ships finds the faces."""
    monkeypatch.delenv(detection.DETECTOR_VARIABLE, raising=False)
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """CSV of 70 drawn images of two groups, with hostile names among them."""
    folder = tmp_path_factory.mktemp("own data")
    generator = np.random.default_rng(0)
    with open(folder / "people.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "Male", "Smiling", "Wearing_Mask", "race", "age"])
        for i in range(70):
            pixels = generator.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            group = "<script>alert(1)</script>|x" if i % 2 else "[a](javascript:alert(1))"
            writer.writerow([f"{i}.png", i % 3 > 0, "" if i % 5 else 1, 1, group, i])
    return folder / "people.csv"


def audit(model, data, output, *more):
    arguments = ["--model", model, "--data", data, "--group", "race", "--output", output]
    return main(["audit", *map(str, arguments), "--bootstrap", "100", *map(str, more)])


def figures_of(page):
    """The JSON that a page carries."""
    encoded = re.search(r'href="data:application/json;base64,([^"]+)"', page).group(1)
    return json.loads(base64.b64decode(encoded))


@pytest.fixture(scope="module")
def page_file(model_folder, table, tmp_path_factory):
    output = tmp_path_factory.mktemp("pages") / "sub" / "audit.html"
    assert audit(model_folder, table, output, "--no-align", "--against", model_folder) == 0
    return output


def test_the_page_holds_everything_it_shows(page_file):
    page = page_file.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(sources) > 5
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert [path.name for path in page_file.parent.iterdir()] == ["audit.html"]


def test_the_figures_are_those_of_the_table(page_file, table, model_folder):
    result = figures_of(page_file.read_text())
    assert result["num_images"] == 70
    assert result["num_labels"] == 70 + 14
    assert result["dataset"] == {"name": "people.csv", "split": None}
    race = result["groups"]["race"]
    assert sorted(s["num_images"] for s in race["per_group"].values()) == [35, 35]
    assert result["comparison"]["overall"]["accuracy"]["difference"] == 0
    model, processor = load_model(model_folder)
    images = [Image.open(table.parent / f"{i}.png") for i in range(70)]
    with torch.inference_mode():
        logits = model(**processor(images, return_tensors="pt")).logits[:, 0]
    right = ((logits.numpy() > 0) == (np.arange(70) % 3 > 0)).sum()
    assert result["per_attribute"]["Male"]["accuracy"] == pytest.approx(right / 70, abs=1e-6)
    assert f"{result['accuracy']:.4f}" in page_file.read_text()


def test_labels_that_the_model_lacks_are_named_on_the_page(page_file):
    # The table's Wearing_Mask; the model has Beard, which the table has no label of.
    page = page_file.read_text()
    assert figures_of(page)["unscored_columns"] == ["Wearing_Mask"]
    assert figures_of(page)["missing_attributes"] == ["Beard"]
    assert "Labels that the model has no attribute for: Wearing_Mask." in page
    assert "Without a known label here: Beard." in page


def test_names_from_the_data_never_become_markup(page_file):
    page = page_file.read_text()
    assert "<script" not in page
    assert "javascript:alert" in page
    assert not re.search(r'href="javascript', page)


def test_a_prepared_dataset_gives_a_page_too(model_folder, dataset_folder, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert audit(model_folder, dataset_folder, output, "--group", "gender") == 0
    result = figures_of(output.read_text())
    assert set(result["groups"]) == {"race", "gender", "race x gender"}
    assert f"page: {output}" in capsys.readouterr().out


def test_photos_without_a_face_or_damaged_are_left_out_and_told(model_folder, tmp_path, capsys):
    cbook = pytest.importorskip("matplotlib.cbook")
    portrait = Image.open(cbook.get_sample_data("grace_hopper.jpg"))
    rows = ["image,Male,race,age"]
    for i in range(4):
        portrait.save(tmp_path / f"{i}.jpg")
        rows.append(f"{i}.jpg,0,{'a' if i % 2 else 'b'},{20 + i}")
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "wall.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    rows += ["wall.png,0,a,30", "broken.jpg,1,b,31"]
    (tmp_path / "people.csv").write_text("\n".join(rows))
    output = tmp_path / "page.html"
    assert audit(model_folder, tmp_path / "people.csv", output, "--group", "age") == 0
    assert figures_of(output.read_text())["num_images"] == 4
    text = output.read_text()
    assert "No face was found in 1 of 6 photos" in text
    assert "by race: a 1 of 3 (33.3%), b 0 of 3 (0.0%)" in text
    assert "by age: 15-29 0 of 4 (0.0%), 30-44 1 of 2 (50.0%)" in text
    assert "1 photos cannot be read and are left out: broken.jpg" in text
    assert "warning: No face was found" in capsys.readouterr().err


def test_faces_are_aligned_to_the_models_own_crop(model_folder, tmp_path):
    cbook = pytest.importorskip("matplotlib.cbook")
    data = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    rows = {"image": [str(data)], "Male": [False], "race": ["a"], "age": [None]}
    kinds = {"image": datasets.Image(decode=False), "Male": datasets.Value("bool")}
    kinds |= {"race": datasets.Value("string"), "age": datasets.Value("int32")}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    _, processor = load_model(model_folder)
    asked = Preprocessing.from_processor(processor, ["Male"])
    dataset, notices = prepare_photos(table, {}, asked, True, tmp_path / "crops.arrow")
    (notice,) = notices  # the cascade's, which this test's detector is
    assert "Haar cascade" in notice
    assert dataset[0]["image"].size == (asked.crop_size, asked.crop_size)
    assert dataset[0]["Male"] is False
    assert dataset[0]["age"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("image,Male,race\n0.png,1,a\n0.png,0,a\n", "'race' has one value, 'a'"),
        ("image,Male,race\n0.png,1,\n0.png,0,\n", "'race' is empty throughout"),
        ("image,Male,race\n0.png,,a\n0.png,,b\n", "no label for any of the model's attributes"),
        ("image,Bald,race\n0.png,1,a\n0.png,1,b\n", "has no labels"),
        ("image,Male\n0.png,1\n", "no column 'race'"),
        ("image,Male,race\nbroken.png,1,a\nbroken.png,1,b\n", "no photo is left to score"),
    ],
)
def test_data_that_cannot_be_audited_end_in_one_line_and_no_page(
    rows, message, model_folder, table, tmp_path, capsys
):
    shutil.copy(table.parent / "0.png", tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no photo")
    (tmp_path / "people.csv").write_text(rows)
    output = tmp_path / "page.html"
    assert audit(model_folder, tmp_path / "people.csv", output, "--no-align") == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("error: ")
    assert message in err
    assert not output.exists()


HOSTILE_NAMES = [
    *("cost_$x_y_z$", r"$\frac{1}{2$", "서울 경기도 인천광역시", "a\x00b\x1b[2J\nc", "<b>&amp;|`*"),
    *("_", "²", "](x", "w" * 200, "# C#", "", "__init__", "עברית", "👩🏽"),
]


@pytest.fixture(scope="module")
def hostile_result():
    """An evaluation by groups of any text, compared with itself, of people of all ages."""
    generator = np.random.default_rng(0)
    count = 40 * len(HOSTILE_NAMES)
    predictions = Predictions(
        names=["Male", "$_x_$"],
        probabilities=generator.random((count, 2)),
        labels=generator.integers(0, 2, (count, 2)),
        groups={"$h|a$ 한국": HOSTILE_NAMES * 40, "$": ["a", "b"] * (count // 2)},
        ages=generator.integers(0, 80, count).tolist(),
    )
    result = score_predictions(predictions, resamples=20)
    result["comparison"] = {"model": {"name": "_old"}} | compare_predictions(
        predictions, predictions, resamples=20
    )
    about = {"model": {"name": "$new$"}, "dataset": {"name": "d", "split": "test"}}
    return result | about | {"missing_attributes": [], "unscored_columns": [], "versions": {}}


def test_groups_of_any_text_are_shown_as_they_are(hostile_result, recwarn):
    page = html_page(hostile_result)
    shown = ElementTree.fromstring(re.sub(r"<meta[^>]*>|<img[^>]*>|<!DOCTYPE html>", "", page))
    cells = {"".join(cell.itertext()) for cell in shown.iter("td")}
    for name in HOSTILE_NAMES:
        assert printable(name) in cells
    assert "$h|a$ 한국" in {"".join(cell.itertext()) for cell in shown.iter("th")}
    figures = [base64.b64decode(part) for part in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert len(figures) == 2 + 3 * 2
    for figure in figures:
        ElementTree.fromstring(figure)
    drawn = b"".join(figures).decode()
    for text in ("cost $x y z$", r"$\frac{1}{2$", "서울", "עברית"):
        assert text in drawn.replace("\u00a0", "")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_p_values_have_four_decimals_and_a_small_one_is_not_called_zero():
    told = [format_p_value(value) for value in (0.0174, 1e-4, 9e-5, 0, None, float("nan"))]
    assert told == ["0.0174", "0.0001", "< 0.0001", "< 0.0001", "–", "–"]


def test_a_small_p_value_is_not_called_zero_in_the_report(hostile_result):
    groups = hostile_result["groups"]
    result = hostile_result | {"groups": groups | {"$": groups["$"] | {"p_value": 1e-7}}}
    page = html_page(result)
    assert "&lt; 0.0001" in page
    assert ">0.0000<" not in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_phone_and_desktop_without_faults(page_file, width):
    sync_api = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    faults, requests = [], []

    def look():
        with sync_api.sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=path, args=options)
            page = browser.new_page(viewport={"width": width, "height": 844})
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(page_file.as_uri())
            scroll_width = page.evaluate("document.documentElement.scrollWidth")
            script = "[...document.images].map(i => i.complete && i.naturalWidth > 0)"
            loaded = page.evaluate(script)
            title = page.locator("h1").inner_text()
            violations = axe.run(page).response["violations"]
            browser.close()
        return scroll_width, loaded, title, violations

    # In a thread of its own: tests of the Space leave Playwright's event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        scroll_width, loaded, title, violations = pool.submit(look).result()
    assert scroll_width <= width
    assert loaded == [True] * 4
    assert title == "tiny on people.csv"
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert not violations, [v["id"] for v in violations]
    assert faults == []
