"""Soft labels: what teachers know is added to the labels."""

import numpy as np
import torch
from label2label.data.loading import FaceCrops, load_split
from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.training.distillation import teach
from label2label.training.objective import add_teacher, training_inputs
from label2label.training.recipe import Recipe

from ..conftest import save_tiny_model

UNKNOWN = -100


def test_a_teacher_sees_images_as_its_own_processor_normalises_them(dataset_folder, tmp_path):
    save_tiny_model(tmp_path, ["Male", "Smiling"])
    processor = Label2LabelImageProcessor(image_mean=[0.2] * 3, image_std=[0.9] * 3)
    processor.save_pretrained(tmp_path)
    crops = FaceCrops(load_split(dataset_folder, "train"), Label2LabelImageProcessor())
    answers = teach([str(tmp_path)], crops, ["Smiling", "Bald"])
    faces = crops.batch(np.arange(3)).numpy()
    model = Label2LabelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = model(**processor(list(faces), return_tensors="pt")).logits
    assert np.allclose(answers[:3, 0], logits.sigmoid()[:, 1], atol=1e-5)
    assert (answers[:, 1] == UNKNOWN).all()


def test_labels_and_teacher_are_mixed_where_both_know():
    labels = torch.tensor([[1, 0, UNKNOWN, 1, UNKNOWN]])
    teacher = torch.tensor([[0.5, 0.5, 0.25, UNKNOWN, UNKNOWN]])
    soft = add_teacher(labels, teacher, share=torch.tensor([[0.6]]))
    assert torch.allclose(soft, torch.tensor([[0.7, 0.3, 0.25, 1.0, UNKNOWN]]))


def test_a_teacher_stands_in_for_an_unknown_label_only_where_it_is_confident():
    labels = torch.tensor([[UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 1, UNKNOWN]])
    teacher = torch.tensor([[0.9, 0.1, 0.89, 0.11, 0.5, UNKNOWN]])
    soft = add_teacher(labels, teacher, share=torch.tensor([[0.5]]), confidence=0.9)
    assert torch.allclose(soft, torch.tensor([[0.9, 0.1, UNKNOWN, UNKNOWN, 0.75, UNKNOWN]]))


def test_labels_are_smoothed_where_they_are_known():
    labels = torch.tensor([[1, 0, UNKNOWN]])
    batch = {"pixel_values": torch.zeros(1, 3, 8, 8), "labels": labels}
    inputs, _ = training_inputs(batch, Recipe(label_smoothing=0.1), np.random.default_rng(0))
    assert torch.allclose(inputs["labels"], torch.tensor([[0.95, 0.05, UNKNOWN]]))
