"""Tiny random models."""

import pytest
import torch
from label2label import Label2LabelConfig, Label2LabelForImageClassification, MobileFaceNetConfig

NUM_ATTRIBUTES = 5


@pytest.fixture
def tiny_backbone_config() -> MobileFaceNetConfig:
    return MobileFaceNetConfig(
        stem_channels=8,
        stages=[[2, 8, 2, 2], [2, 16, 1, 2], [2, 16, 1, 2]],
        feature_channels=24,
        embedding_size=12,
        hidden_act="relu6",
    )


@pytest.fixture
def make_model(tiny_backbone_config):
    """Build a tiny model in evaluation mode; keyword arguments go to its config."""

    def make(**kwargs) -> Label2LabelForImageClassification:
        torch.manual_seed(0)
        settings = {
            "backbone_config": tiny_backbone_config,
            "num_labels": NUM_ATTRIBUTES,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_attention_heads": 2,
            **kwargs,
        }
        return Label2LabelForImageClassification(Label2LabelConfig(**settings)).eval()

    return make


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2, (4, NUM_ATTRIBUTES), generator=generator)
