"""Two processes over gloo train as one does with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from label2label.models.modeling_label2label import Label2LabelBatchNorm
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer

# Sums are taken in another order, and an optimizer's first steps enlarge what is near to 0.
TOLERANCE = 1e-3


def launch(folder: Path, *more: str) -> subprocess.CompletedProcess:
    """Trains `folder/recipe.yaml` in two processes."""
    return subprocess.run(
        [
            # --multi_gpu is what starts several processes; with --cpu accelerate would start one.
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
            *("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
            *("--mixed_precision", "no", "--dynamo_backend", "no"),
            *("-m", "label2label", "train"),
            *("--recipe", str(folder / "recipe.yaml"), "--output", str(folder / "two"), *more),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("power", [1, 0])
def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(
    recipe_values, dataset_folder, grouped_folder, tmp_path, power
):
    values = {
        **recipe_values,
        "data": str(grouped_folder),
        "label_count_power": power,
        "groups": ["race"],
        "batch_size": 8,
        "epochs": 3,
        # What is drawn in every process on its own is left out; augmentation follows the images.
        "mixup": 0,
    }
    if power != 1:  # images with one label and with two, of unequal weight, and balanced groups
        sources = [{"path": str(dataset_folder), "weight": 0.3}, {"path": str(grouped_folder)}]
        values |= {"data": sources, "sampling": "group-balanced"}
    values["model"] = {**values["model"], "dropout": 0.0, "mask_probability": 0.0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    launched = launch(tmp_path)
    assert launched.returncode == 0, launched.stderr
    two = json.loads((tmp_path / "two/history.json").read_text())

    one = Trainer(Recipe(**{**values, "batch_size": 16}), tmp_path / "one").train()["history"]
    steps = [2, 4, 6] if power == 1 else [5, 10, 15]
    assert [entry["step"] for entry in two] == [entry["step"] for entry in one] == steps
    losses = [[entry["train_loss"] for entry in history] for history in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    assert losses[0][0] != pytest.approx(losses[0][2], rel=10 * TOLERANCE)
    assert [entry["accuracy"] for entry in two] == [entry["accuracy"] for entry in one]
    resumed = launch(tmp_path, "--resume", "--set", "epochs=4")
    assert resumed.returncode == 0, resumed.stderr
    more = json.loads((tmp_path / "two/history.json").read_text())
    assert more[:3] == two
    assert more[3]["train_loss"] < two[0]["train_loss"]


def _compare_with_plain(rank: int, folder: str) -> None:
    from label2label.training.model_building import prepare_layers

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    whole = torch.randn(6, 4, 3, 3) * 3 + 5
    plain, parts = torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.BatchNorm2d(4))
    torch.nn.init.normal_(plain.weight)
    parts[0].load_state_dict(plain.state_dict())
    prepare_layers(parts, processes=2)
    own = whole[:2] if rank == 0 else whole[2:]  # parts of unequal size
    inputs, part = whole.clone().requires_grad_(), own.clone().requires_grad_()
    expected, found = plain(inputs), parts(part)
    chosen = slice(0, 2) if rank == 0 else slice(2, 6)
    torch.testing.assert_close(found, expected[chosen])
    target = torch.arange(whole.numel()).view_as(whole).float().sin()
    (expected * target).sum().backward()
    (found * target[chosen]).sum().backward()
    torch.testing.assert_close(part.grad, inputs.grad[chosen])
    torch.testing.assert_close(parts[0].running_mean, plain.running_mean)
    torch.testing.assert_close(parts[0].running_var, plain.running_var)
    torch.testing.assert_close(parts.eval()(own), plain.eval()(own))

    logits, given = torch.randn(6, 4), torch.rand(6, 4) < 0.4
    joined, parts = Label2LabelBatchNorm(4), torch.nn.Sequential(Label2LabelBatchNorm(4))
    prepare_layers(parts, processes=2)
    found = parts[0](logits[chosen], given[chosen])
    torch.testing.assert_close(found, joined(logits, given)[chosen])
    torch.testing.assert_close(parts[0].running_mean, joined.running_mean)
    torch.testing.assert_close(parts[0].running_var, joined.running_var)
    # A process that ends while its group lives may be aborted.
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_batch_norm_over_two_processes_is_that_of_their_images_together(tmp_path):
    torch.multiprocessing.spawn(_compare_with_plain, args=(str(tmp_path),), nprocs=2)
