"""A model's probabilities over a labelled dataset, by as many processes as were launched."""

from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from datasets import Dataset, Image
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from label2label.errors import UserError


def predict_dataset(
    accelerator: Accelerator,
    model: torch.nn.Module,
    processor: Any,
    dataset: Dataset,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities of every image, in the dataset's order, on every process.

    Args:
        accelerator: of the process; each predicts its share, and every image counts once.
        model: a `Label2LabelForImageClassification`.
        processor: its image processor.
        dataset: with an `image` column.
        batch_size: images a forward pass and process.

    Returns:
        Sigmoid of `logits` and of `query_logits` (None where the model has none), each
        (images, attributes), 0 to 1.

    Raises:
        UserError: for an image that cannot be read.
    """

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images = [_read_image(row["image"], row["row"]) for row in rows]
        pixel_values = processor(images, return_tensors="pt").pixel_values
        return {"pixel_values": pixel_values, "row": torch.tensor([row["row"] for row in rows])}

    # Undecoded, so that an image which cannot be read is met in `collate`, where its row is known.
    rows = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
    rows = rows.add_column("row", list(range(len(dataset))))
    loader = accelerator.prepare(DataLoader(rows, batch_size=batch_size, collate_fn=collate))
    layout = torch.channels_last  # faster on most devices
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    model = accelerator.prepare_model(model, evaluation_mode=True).eval()
    gathered: dict[str, list[np.ndarray]] = {"row": [], "logits": [], "query_logits": []}
    progress = tqdm(loader, desc="evaluate", unit="batch", disable=not accelerator.is_main_process)
    for batch in progress:
        with torch.inference_mode():
            outputs = model(pixel_values=batch["pixel_values"].contiguous(memory_format=layout))
        values = {"row": batch["row"], "logits": outputs.logits.float()}
        if outputs.query_logits is not None:
            values["query_logits"] = outputs.query_logits.float()
        for name, value in accelerator.gather(values).items():
            gathered[name].append(value.cpu().numpy())
    # The last batches are padded so that every process has its share: each row counts once.
    rows_seen, order = np.unique(np.concatenate(gathered["row"]), return_index=True)
    if len(rows_seen) != len(dataset):
        raise RuntimeError(f"{len(rows_seen)} predictions for {len(dataset)} images")

    def probabilities(name: str) -> np.ndarray:
        logits = np.concatenate(gathered[name])[order].astype(np.float64)
        return 1 / (1 + np.exp(-logits))

    query_probabilities = probabilities("query_logits") if gathered["query_logits"] else None
    return probabilities("logits"), query_probabilities


def _read_image(example: dict[str, Any] | None, row: int) -> PIL.Image.Image:
    try:
        if example is None:
            raise ValueError("it is null")
        return Image().decode_example(example)
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"the image in row {row} of the split cannot be read: {error}") from error
