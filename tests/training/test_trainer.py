"""The loop: it learns, it stops and goes on without a trace, and it fails in one line."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.cli import main
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError
from label2label.training import data as data_module
from label2label.training import model_building
from label2label.training import trainer as trainer_module
from label2label.training.objective import draw_known_words
from label2label.training.recipe import Recipe
from label2label.training.trainer import (
    Trainer,
    build_average,
    lock_output,
    parameter_groups,
    save_state,
)


def weights(folder) -> dict[str, torch.Tensor]:
    return Label2LabelForImageClassification.from_pretrained(folder).state_dict()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_it_learns_what_can_be_seen_and_ignores_what_is_not_known(recipe_values, tmp_path):
    recipe = Recipe(
        **{**recipe_values, "epochs": 12, "mixup": 0.0, "erasing": 0.0, "head_learning_rate": 0.01}
    )
    result = Trainer(recipe, tmp_path).train()
    assert result["finished"]
    assert result["best_accuracy"] > 0.9
    losses = [entry["train_loss"] for entry in result["history"]]
    assert losses[-1] < 0.7 * losses[0]


def test_outputs_load_like_any_model(recipe_values, tmp_path):
    Trainer(Recipe(**recipe_values), tmp_path).train()
    model = Label2LabelForImageClassification.from_pretrained(tmp_path / "best")
    assert list(model.config.id2label.values()) == list(CELEBA_ATTRIBUTES)
    Label2LabelImageProcessor.from_pretrained(tmp_path / "best")
    assert [e["epoch"] for e in json.loads((tmp_path / "history.json").read_text())] == [1, 2]
    assert list((tmp_path / "logs").glob("events.*"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stop_after", [1, 5, 8])
def test_interrupted_at_any_step_it_ends_with_the_same_weights(
    recipe_values, tmp_path, stop_after, monkeypatch
):
    recipe = Recipe(**recipe_values)
    Trainer(recipe, tmp_path / "whole").train()

    first = Trainer(recipe, tmp_path / "parts")
    step, done = first.step, []

    def step_then_interrupt(batch):
        loss = step(batch)
        done.append(loss)
        first.interrupted = len(done) >= stop_after
        return loss

    monkeypatch.setattr(first, "step", step_then_interrupt)
    assert not first.train()["finished"]
    second = Trainer(recipe, tmp_path / "parts")
    second.resume()
    assert second.train()["finished"]
    assert_same(weights(tmp_path / "whole/last"), weights(tmp_path / "parts/last"))
    assert (
        second.progress.history[-1]["accuracy"]
        == json.loads((tmp_path / "whole/history.json").read_text())[-1]["accuracy"]
    )


def test_states_come_every_so_many_steps(recipe_values, tmp_path, monkeypatch):
    recipe = Recipe(**recipe_values, checkpoint_every=3)
    saved = []

    def save_and_count(accelerator, folder, step):
        save_state(accelerator, folder, step)
        saved.append(step)

    monkeypatch.setattr(trainer_module, "save_state", save_and_count)
    Trainer(recipe, tmp_path / "whole").train()
    # Two epochs of five steps; an epoch's end saves too.
    assert saved == [3, 5, 6, 9, 10]

    first = Trainer(recipe, tmp_path / "parts")
    step = first.step

    def step_then_break(batch):
        if first.progress.step == 7:
            raise RuntimeError("power cut")
        return step(batch)

    monkeypatch.setattr(first, "step", step_then_break)
    with pytest.raises(RuntimeError, match="power cut"):
        first.train()
    second = Trainer(recipe, tmp_path / "parts")
    second.resume()
    assert second.progress.step == 6
    assert second.train()["finished"]
    assert_same(weights(tmp_path / "whole/last"), weights(tmp_path / "parts/last"))


@pytest.mark.slow
def test_ctrl_c_saves_and_the_command_goes_on(recipe_file, tmp_path):
    def command(output, *more):
        return [
            *(sys.executable, "-m", "label2label", "train", "--recipe", str(recipe_file)),
            *("--output", str(output), "--set", "epochs=3", *more),
        ]

    running = subprocess.Popen(
        [*command(tmp_path / "parts"), "--set", "epochs=200", "--set", "workers=1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("parts/history.json")) and time.monotonic() < deadline:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGINT)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "stopped and saved at step" in output
    assert "Traceback" not in errors
    assert list(tmp_path.glob("parts/state/step-*"))

    again = subprocess.run(command(tmp_path / "parts"), capture_output=True, text=True)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_a_full_disk_ends_in_one_line_and_keeps_the_state_before(
    recipe_values, tmp_path, monkeypatch, capsys
):
    trainer = Trainer(Recipe(**recipe_values), tmp_path)
    save_state(trainer.accelerator, tmp_path / "state", 1)

    def fail(path):
        (tmp_path / "state/.step-00000002/model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.accelerator, "save_state", fail)
    with pytest.raises(UserError, match=r"No space left on device.*resume from .*step-00000001"):
        save_state(trainer.accelerator, tmp_path / "state", 2)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000001"]


def test_a_model_that_cannot_be_written_keeps_the_one_before(recipe_values, tmp_path, monkeypatch):
    trainer = Trainer(Recipe(**recipe_values), tmp_path)
    trainer._save_model("best")
    before = weights(tmp_path / "best")
    monkeypatch.setattr(
        trainer.processor,
        "save_pretrained",
        lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(UserError, match="No space left on device"):
        trainer._save_model("best")
    assert_same(before, weights(tmp_path / "best"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nowhere/at/all"}, "no such folder"),
        ({"backbone": "nowhere/at/all", "backbone_config": None}, "label2label convert"),
        ({"batch_size": 64}, "do not fill one batch"),
        ({"vocabulary": "esperanto"}, "unknown vocabulary"),
        ({"vocabulary": "korean-11"}, "no column 'Wearing_Mask'.*set vocabulary to columns"),
        ({"init_from": "nowhere/at/all", "backbone_config": None, "model": {}}, "does not exist"),
        ({"teachers": ["nowhere/at/all"]}, "nowhere/at/all does not exist"),
        ({"model": {"hidden": 3}}, "unknown key hidden"),
        ({"model": {"hidden_size": 18}}, "hidden_size must be a multiple"),
        ({"model": {"num_attention_heads": 0}}, "num_attention_heads must be in 1"),
        ({"model": {"hidden_act": "foo"}}, "foo"),
        ({"backbone_config": {"model_type": "bert"}}, "BertConfig"),
        ({"backbone_config": {"model_type": "nothing"}}, "nothing"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(recipe_values, tmp_path, change, message):
    recipe = Recipe(**{**recipe_values, **change})
    with pytest.raises(UserError, match=message) as refused:
        Trainer(recipe, tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_image_that_cannot_be_read_ends_in_one_line(
    recipe_values, dataset_folder, tmp_path, split
):
    folder = shutil.copytree(dataset_folder, tmp_path / "data")
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    table = datasets.Dataset.from_parquet(str(file))
    rows = table.cast_column("image", datasets.Image(decode=False)).to_list()
    rows[5]["image"] = {"bytes": b"no image", "path": "5.png"}
    datasets.Dataset.from_list(rows, features=table.features).to_parquet(file)
    message = r"the image in 5\.png \(row 5\) cannot be read"
    for cached in (False, True):
        changed = {"data": str(folder), "cache_pixels": cached, "epochs": 1}
        with pytest.raises(UserError, match=message) as told:
            Trainer(Recipe(**{**recipe_values, **changed}), tmp_path / "run").train()
    assert "\n" not in str(told.value)


def test_an_error_without_a_text_is_told_by_its_type(recipe_values, tmp_path, monkeypatch):
    def fail(name):
        raise RuntimeError

    monkeypatch.setattr(model_building.AutoConfig, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"cannot be loaded as a backbone \(RuntimeError\)"):
        model_building.load_backbone("some/backbone")
    Trainer(Recipe(**recipe_values), tmp_path).train()
    trainer = Trainer(Recipe(**recipe_values), tmp_path)
    monkeypatch.setattr(trainer.accelerator, "load_state", fail)
    with pytest.raises(UserError, match=r"does not fit this recipe: RuntimeError$"):
        trainer.resume()


def test_a_run_goes_on_with_its_own_recipe_only(recipe_values, tmp_path):
    Trainer(Recipe(**recipe_values), tmp_path).train()
    longer = {**recipe_values, "epochs": recipe_values["epochs"] + 1, "checkpoint_every": 2}
    longer["data"] = [{"path": recipe_values["data"]}]  # the same, written otherwise
    Trainer(Recipe(**longer), tmp_path).resume()
    for change in ({"head_learning_rate": 0.123}, {"data": [{"path": "a", "limit": 9}]}):
        other = Trainer(Recipe(**recipe_values), tmp_path)
        other.recipe = Recipe(**{**recipe_values, **change})
        with pytest.raises(UserError, match=f"started with a different {next(iter(change))}"):
            other.resume()


def test_a_run_goes_on_with_as_many_processes_only(recipe_values, tmp_path):
    first = Trainer(Recipe(**recipe_values), tmp_path)
    first.progress.processes = 2
    first.train()
    with pytest.raises(UserError, match="saved by a run of 2 processes, not 1") as refused:
        Trainer(Recipe(**recipe_values), tmp_path).resume()
    assert "\n" not in str(refused.value)


def test_a_wrong_folder_ends_in_one_line_before_data_are_read(
    recipe_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("label2label.training.trainer.TrainingData", None)
    arguments = ["train", "--recipe", str(recipe_file), "--output", str(tmp_path / "run")]
    assert main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no state to resume from" in error
    (tmp_path / "run" / "state" / "step-00000001").mkdir(parents=True)
    assert main(arguments) == 2
    assert "holds a run; continue it with --resume" in capsys.readouterr().err


def test_a_second_training_in_one_folder_ends_in_one_line(recipe_file, tmp_path, capsys):
    with lock_output(tmp_path / "run"):
        running = subprocess.run(
            [
                *(sys.executable, "-m", "label2label", "train", "--recipe", str(recipe_file)),
                *("--output", str(tmp_path / "run")),
            ],
            capture_output=True,
            text=True,
        )
    assert running.returncode == 2
    assert (
        running.stderr.strip()
        .splitlines()[-1]
        .endswith("another training runs in this folder; wait for it or choose another")
    )
    assert "Traceback" not in running.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert main(["train", "--recipe", str(recipe_file), "--output", str(tmp_path / "run")]) == 0


def test_image_sizes_share_the_epochs_evenly(recipe_values, tmp_path):
    recipe = Recipe(**{**recipe_values, "epochs": 4, "image_sizes": [48, 64, 112], "mixup": 0})
    trainer = Trainer(recipe, tmp_path)
    sizes = []
    for epoch in range(4):
        trainer.progress.epoch = epoch
        batch = next(iter(trainer.data.batches(epoch, 0)))
        sizes.append(trainer._inputs(batch, np.random.default_rng(0))[0]["pixel_values"].shape[-1])
    assert sizes == [48, 48, 64, 112]


def test_frozen_stages_keep_weights_and_statistics_in_their_epochs_alone(recipe_values, tmp_path):
    recipe = Recipe(**{**recipe_values, "epochs": 2, "frozen_stages": [0, 2]})
    trainer = Trainer(recipe, tmp_path)
    encoder = trainer.model.label2label.backbone.encoder

    def change_in_epoch(epoch):
        trainer.progress.epoch = epoch
        parts = (encoder.stem, *encoder.stages)
        before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
        batches = trainer.batches()
        trainer.step(next(batches))  # the first step's learning rate is 0
        trainer.step(next(batches))
        return [
            any(not torch.equal(v, old[k]) for k, v in part.state_dict().items())
            for part, old in zip(parts, before, strict=True)
        ]

    assert all(change_in_epoch(0))
    learns = change_in_epoch(1)
    assert not any(learns[:2])
    assert all(learns[2:])


def test_frozen_stages_need_a_mobilefacenet(recipe_values, tmp_path, monkeypatch):
    monkeypatch.setattr("label2label.training.trainer.TrainingData.prepare", None)
    values = {**recipe_values, "frozen_stages": [1], "backbone_config": {"model_type": "resnet"}}
    with pytest.raises(UserError, match="needs a MobileFaceNet"):
        Trainer(Recipe(**values), tmp_path)


def test_norms_biases_and_slopes_do_not_decay(recipe_values, tmp_path):
    trainer = Trainer(Recipe(**recipe_values), tmp_path)
    groups = parameter_groups(trainer.model, trainer.recipe)
    for group in groups:
        for parameter in group["params"]:
            assert (parameter.ndim > 1) == (group["weight_decay"] > 0)
    assert sum(len(g["params"]) for g in groups) == len(list(trainer.model.parameters()))
    assert {g["lr"] for g in groups} == {0.0005, 0.001, 0.01}


def test_known_words_are_true_words_of_every_second_image():
    labels = torch.randint(0, 2, (2000, 40), generator=torch.Generator().manual_seed(0))
    labels[:, 3] = -100
    known = draw_known_words(labels, 0.5, np.random.default_rng(0))
    given = known >= 0
    assert torch.equal(known[given], labels[given])
    assert not given[:, 3].any()
    share = given.float().sum(dim=1) / 39
    assert (share == 0).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert share.mean().item() == pytest.approx(0.125, abs=0.02)
    assert share.max() < 0.75


def test_a_second_round_goes_on_from_a_model_and_its_teachers(recipe_values, tmp_path):
    Trainer(Recipe(**recipe_values), tmp_path / "first").train()
    best = str(tmp_path / "first/best")
    values = {k: v for k, v in recipe_values.items() if k not in ("backbone_config", "model")}
    recipe = Recipe(**{**values, "init_from": best, "teachers": [best], "known_words": 0.5})
    trainer = Trainer(recipe, tmp_path / "second")
    assert_same(trainer.model.state_dict(), weights(best))
    assert trainer.train()["finished"]
    # The teacher is asked once: the file stands in for it from then on.
    (file,) = (tmp_path / "second").glob("teacher-*.npy")
    teacher = np.load(file)
    assert teacher.shape == (40, 40)
    assert ((teacher >= 0) & (teacher <= 1)).all()
    np.save(file, np.full_like(teacher, 0.25))
    again = Trainer(recipe, tmp_path / "second")
    assert (again.data.supervision["teacher"] == 0.25).all()


@pytest.mark.parametrize("change", ["data", "teachers", "weights", "shown", "crop"])
def test_answers_of_other_teachers_or_other_rows_are_not_taken_over(
    recipe_values, dataset_folder, tmp_path, monkeypatch, change
):
    asked = []

    def answer(teachers, crops, attributes, *rest):
        asked.append([list(teachers), len(crops)])
        return np.full((len(crops), len(attributes)), len(asked) / 10, np.float32)

    monkeypatch.setattr(data_module, "teach", answer)
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "model.safetensors").write_bytes(b"some weights")
    source = {"path": str(dataset_folder)}
    values = {**recipe_values, "data": [source], "teachers": [str(teacher)]}
    run = tmp_path / "run"
    for _ in range(2):
        answers = Trainer(Recipe(**values), run).data.supervision["teacher"]
        assert (answers == np.float32(0.1)).all()
    assert asked == [[[str(teacher)], 40]]

    if change == "data":
        source["limit"] = 39
    elif change == "teachers":
        values["teachers"] = ["somebody/teacher"]
    elif change == "weights":
        (teacher / "model.safetensors").write_bytes(b"other weights")
    elif change == "shown":
        # As many rows as before, of which none is shown.
        source["distillation"] = 0
    else:
        larger = {"height": 96, "width": 96}
        monkeypatch.setattr(Label2LabelImageProcessor, "crop_size", larger)
    answers = Trainer(Recipe(**values), run).data.supervision["teacher"]
    expected = -100 if change == "shown" else 0.2
    assert answers.shape == (39 if change == "data" else 40, 40)
    assert (answers == np.float32(expected)).all()
    assert isinstance(answers, np.memmap)


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.0},
        {"cache_pixels": False, "workers": 2},
        {"zoom": 0.5, "image_sizes": [64, 112]},
    ],
)
def test_every_switch_trains(recipe_values, tmp_path, change):
    recipe = dataclasses.replace(Recipe(**recipe_values), epochs=1, **change)
    assert Trainer(recipe, tmp_path).train()["step"] == 5


def test_the_average_of_a_short_run_forgets_the_weights_it_started_from():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = build_average(model, Recipe(ema=0.999))
    average.update_parameters(model)
    torch.nn.init.ones_(model.weight)
    for _ in range(20):
        average.update_parameters(model)
    assert average.module.weight.item() > 0.95
    for _ in range(20_000):
        average.update_parameters(model)
    torch.nn.init.zeros_(model.weight)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(0.999, abs=1e-4)
