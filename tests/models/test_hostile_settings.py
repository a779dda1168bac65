"""Configs that a stranger wrote: refused in one error and at once, or good for a model."""

import copy
import json
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from label2label import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
    MobileFaceNetConfig,
)

VALUES = [None, True, -1, 0, 1, 2, 7, 16, 0.5, 10**6, 10**9, 10**30, 10**400, 1e308, -0.0]
VALUES += [float("nan"), float("inf"), "", "x", "\x1b[2J", "12", [], {}, [[]], [0], [None], ["x"]]
VALUES += [{"0": "a", "2": "b"}, {"x": 1}, [1.0, 2.0, 3.0], ["x"] * 5, [[1, 2]] * 5]
CONFIG_KEYS = [*Label2LabelConfig.__annotations__, "id2label", "num_labels"]


def mutate(settings: dict, rng: random.Random) -> dict:
    """A copy with one to three values replaced, removed or added, at any depth."""
    settings = copy.deepcopy(settings)
    for _ in range(rng.randint(1, 3)):
        place = settings
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.4:
                break
            place = place[key]
        if isinstance(place, dict) and rng.random() < 0.1:
            del place[key]
            if not settings:
                return settings
        elif isinstance(place[key], int | float) and rng.random() < 0.5:
            place[key] = rng.choice([2 * place[key], place[key] + 4, place[key] - 1])
        else:
            place[key] = copy.deepcopy(rng.choice(VALUES))
    return settings


@pytest.mark.hostile
def test_a_mutated_config_is_refused_at_once_or_builds_a_model(make_model):
    whole = make_model(id2label={i: f"a{i}" for i in range(5)}).config.to_dict()
    settings = {key: value for key, value in whole.items() if key in CONFIG_KEYS}
    backbone = settings["backbone_config"]
    known = [*MobileFaceNetConfig.__annotations__, "out_features", "model_type"]
    settings["backbone_config"] = {key: backbone[key] for key in known if key in backbone}
    rng, built = random.Random(0), 0
    for _ in range(600):
        mutant = mutate(settings, rng)
        started = time.monotonic()
        try:
            with torch.device("meta"):
                Label2LabelForImageClassification(Label2LabelConfig.from_dict(mutant))
            built += 1
        except (ValueError, StrictDataclassError):
            pass
        except Exception as error:
            raise AssertionError(json.dumps(mutant)) from error
        assert time.monotonic() - started < 5, mutant
    assert 60 < built < 540


@pytest.mark.hostile
def test_a_mutated_processor_is_refused_at_once_or_gives_pixels_and_answers():
    names = ["Bald", "Bangs", "Young"]
    settings = Label2LabelImageProcessor(attributes=names, thresholds=[0.5, 0.4, 0.6]).to_dict()
    settings = {k: v for k, v in settings.items() if k in Label2LabelImageProcessor().to_dict()}
    rng, worked = random.Random(0), 0
    face = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    for _ in range(400):
        mutant = mutate(settings, rng)
        started = time.monotonic()
        try:
            processor = Label2LabelImageProcessor.from_dict(mutant)
            pixels = processor(face, return_tensors="np")["pixel_values"]
            names = processor.attributes or names
            outputs = SimpleNamespace(logits=np.ones((1, len(names))))
            (answers,) = processor.post_process_attributes(outputs, id2label=dict(enumerate(names)))
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(json.dumps(mutant)) from error
        finally:
            assert time.monotonic() - started < 5, mutant
        worked += 1
        assert np.isfinite(pixels).all()
        assert list(answers) == names
    assert 40 < worked < 360


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_query_layers": 10**6}, "num_query_layers must be in 1..100"),
        ({"hidden_size": 8192, "num_mlm_layers": 99}, "is too large"),
        ({"num_labels": 10**9}, "num_labels must be in 1..10000"),
        ({"id2label": {0: "a", 2: "b"}}, "id2label must give each of 0 to 1 a different name"),
        ({"id2label": {0: "a", 1: "a"}}, "a different name"),
        ({"backbone_config": {"model_type": "x"}}, "no backbone of type 'x'"),
        ({"backbone_config": {"stages": [[2, 8, 10**8, 1]]}}, "100000000 blocks"),
        ({"backbone_config": {"width_multiplier": 50}}, "blocks of this width is too large"),
        ({"head_type": "gru"}, "head_type must be one of"),
        ({"hidden_size": 18}, "multiple of 4"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"dropout": 1.5}, "dropout must be in 0..1"),
        ({"temperature": float("nan")}, "temperature must be in"),
        ({"hidden_act": "x"}, "hidden_act must be one of"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        Label2LabelConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 20000}, "crop_size must be of 1 to 4096 pixels"),
        ({"image_mean": "x"}, "image_mean"),
        ({"image_std": [0.0, 0.0, 0.0]}, "image_std must be one or three numbers of at least"),
        ({"attributes": 5}, "attributes"),
        ({"attributes": ["a", "a"]}, "attributes must be different names"),
        ({"attributes": ["a"], "thresholds": [0.5, 0.5]}, "thresholds must be"),
        ({"attributes": ["a"], "thresholds": [7.0]}, "thresholds must be a probability"),
        ({"alignment_template": [[1.0, 2.0]]}, "five points"),
        ({"exclusive_answers": "x"}, "exclusive_answers"),
    ],
)
def test_a_processor_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        Label2LabelImageProcessor(**settings)
    assert "\n" not in str(refusal.value)
