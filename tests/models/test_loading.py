"""Every way in which people load a model from the Hub."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification, Label2LabelImageProcessor
from packaging.version import Version
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    pipeline,
)
from transformers.models.auto import image_processing_auto


@pytest.fixture
def folder(make_model, tmp_path):
    model = make_model(id2label={i: f"Attribute_{i}" for i in range(5)})
    model.save_pretrained(tmp_path / "model")
    Label2LabelImageProcessor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def expected_logits(folder, photo) -> torch.Tensor:
    model = Label2LabelForImageClassification.from_pretrained(folder).eval()
    processor = Label2LabelImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        return model(**processor(Image.open(photo), return_tensors="pt")).logits


def test_the_folder_carries_its_code_and_no_pickle(folder):
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "configuration_label2label.py",
        "configuration_mobilefacenet.py",
        "exclusive_answers.py",
        "image_processing_label2label.py",
        "modeling_label2label.py",
        "modeling_mobilefacenet.py",
    } == names


def test_auto_classes_load_it_after_import_label2label(folder, photo):
    expected = expected_logits(folder, photo)
    assert AutoConfig.from_pretrained(folder).problem_type == "multi_label_classification"
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(Image.open(photo), return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**pixels).logits, expected)
        hidden = AutoModel.from_pretrained(folder).eval()(**pixels).last_hidden_state
    assert hidden.shape == (1, 5, 16)


@pytest.mark.skipif(
    Version(version("accelerate")) < Version("1.15"), reason="offloads a whole model from 1.15 on"
)
def test_parts_of_it_may_lie_on_disk(folder, tmp_path, images):
    expected = Label2LabelForImageClassification.from_pretrained(folder).eval()(images).logits
    offloaded = Label2LabelForImageClassification.from_pretrained(
        folder,
        device_map={"": "disk"},
        offload_folder=tmp_path / "offloaded",
    )
    assert torch.equal(offloaded.eval()(images).logits, expected)


def test_a_processor_answers_with_the_names_of_the_model_beside_it(folder, photo):
    names = [f"Attribute_{i}" for i in range(5)]
    older = Label2LabelImageProcessor(attributes=["Bald", "Attribute_3"], thresholds=[0.2, 0.9])
    older.save_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert processor.attributes == names
    assert processor.thresholds == [0.5, 0.5, 0.5, 0.9, 0.5]
    logits = expected_logits(folder, photo)
    assert list(processor.post_process_attributes(SimpleNamespace(logits=logits))[0]) == names


def test_pipeline_gives_sigmoid_scores_by_name_and_asks_nothing(folder, photo, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "n")
    classify = pipeline("image-classification", model=str(folder), trust_remote_code=True)
    assert not asked
    scores = {entry["label"]: entry["score"] for entry in classify(str(photo), top_k=5)}
    expected = expected_logits(folder, photo).sigmoid()[0]
    for i in range(5):
        assert scores[f"Attribute_{i}"] == pytest.approx(expected[i].item(), abs=1e-6)


def test_the_processor_is_the_same_class_where_torchvision_is_installed(folder, monkeypatch):
    # There transformers asks for a backend of its own first, which ours leaves to Pillow.
    monkeypatch.setattr(image_processing_auto, "is_torchvision_available", lambda: True)
    assert type(AutoImageProcessor.from_pretrained(folder)) is Label2LabelImageProcessor
    trusted = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    assert type(trusted).__name__ == "Label2LabelImageProcessor"


ALONE = """
import json, sys
sys.modules["label2label"] = None  # as where it is not installed
from packaging.version import Version
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
)
import torch
folder, photo = sys.argv[1:]
trust = dict(trust_remote_code=True)
config = AutoConfig.from_pretrained(folder, **trust)
model = AutoModelForImageClassification.from_pretrained(folder, **trust).eval()
processor = AutoImageProcessor.from_pretrained(folder, **trust)
with torch.no_grad():
    pixels = processor(Image.open(photo), return_tensors="pt")
    logits = model(**pixels).logits[0].tolist()
    hidden = list(AutoModel.from_pretrained(folder, **trust).eval()(**pixels)[0].shape)
classify = pipeline("image-classification", model=folder, **trust)
scores = {entry["label"]: entry["score"] for entry in classify(photo, top_k=5)}
model.save_pretrained(folder + "-again")
processor.save_pretrained(folder + "-again")
again = AutoModelForImageClassification.from_pretrained(folder + "-again", **trust).eval()
with torch.no_grad():
    assert again(**pixels).logits[0].tolist() == logits
print(json.dumps({"logits": logits, "hidden": hidden, "scores": scores, "type": config.model_type}))
"""


@pytest.mark.slow
def test_a_process_without_the_package_loads_it_with_trust_remote_code(folder, photo, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), str(photo)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    expected = expected_logits(folder, photo)[0]
    assert result["type"] == "label2label"
    assert result["hidden"] == [1, 5, 16]
    assert result["logits"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert result["scores"]["Attribute_2"] == pytest.approx(expected[2].sigmoid().item(), abs=1e-6)


BACKBONE_ALONE = """
import sys
sys.modules["label2label"] = None
from transformers import AutoBackbone, AutoConfig, AutoModel
import torch
config = AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
backbone = AutoBackbone.from_config(config, trust_remote_code=True).eval()
weights = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).state_dict()
backbone.load_state_dict({k: v for k, v in weights.items() if k.startswith("encoder.")})
print(backbone(torch.ones(1, 3, 48, 48)).feature_maps[0].sum().item())
"""


@pytest.mark.slow
def test_autobackbone_works_without_the_package(tiny_backbone_config, tmp_path):
    from label2label import MobileFaceNetModel

    tiny_backbone_config.image_size = 48
    model = MobileFaceNetModel(tiny_backbone_config).eval()
    model.save_pretrained(tmp_path / "backbone")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BACKBONE_ALONE, str(tmp_path / "backbone")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    expected = model(torch.ones(1, 3, 48, 48)).last_hidden_state.sum().item()
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(expected, rel=1e-4)


def imports_of(code: str) -> set[str]:
    """Modules that a fresh process has loaded after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_label2label_registers_and_needs_no_training_library():
    transformers_own = imports_of(
        "import transformers.modeling_utils, transformers.image_processing_backends\n"
        "from transformers import AutoBackbone, AutoImageProcessor, AutoModel, ResNetBackbone"
    )
    added = {name.split(".")[0] for name in imports_of("import label2label") - transformers_own}
    assert "label2label" in added
    assert not added & {"cv2", "datasets", "accelerate", "evaluate", "matplotlib", "torchvision"}


@pytest.mark.slow
def test_auto_classes_know_the_models_whichever_is_imported_first():
    registered = "assert 'label2label' in transformers.CONFIG_MAPPING"
    imports = ["import label2label", "import transformers; transformers.AutoModel"]
    for first, second in (imports, imports[::-1]):
        subprocess.run(
            [sys.executable, "-c", f"import sys\n{first}\n{second}\n{registered}"], check=True
        )


def test_decided_answers_need_no_transformers():
    loaded = imports_of("import label2label.models.exclusive_answers")
    assert not loaded & {"torch", "transformers"}


def test_lazy_names_are_the_models_own():
    import label2label

    assert label2label.Label2LabelForImageClassification is Label2LabelForImageClassification
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = label2label.Nothing
