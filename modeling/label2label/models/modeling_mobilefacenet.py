"""PyTorch MobileFaceNet: a light face encoder (arXiv:1804.07573)."""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .configuration_mobilefacenet import MobileFaceNetConfig


def scale_channels(channels: int, width_multiplier: float) -> int:
    """Scale a channel count and round it to the nearest multiple of 8, at least 8."""
    if width_multiplier == 1:
        return channels
    return max(8, int(channels * width_multiplier + 4) // 8 * 8)


class MobileFaceNetConvLayer(nn.Module):
    """Convolution without bias, BatchNorm and activation; linear if `activation` is `None`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        activation: str | None = None,
    ):
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if padding is None else padding,
            groups=groups,
            bias=False,
        )
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation: nn.Module = nn.Identity()
        if activation is not None:
            is_prelu = activation == "prelu"
            self.activation = nn.PReLU(out_channels) if is_prelu else ACT2FN[activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))


class MobileFaceNetBottleneck(GradientCheckpointingLayer):
    """Inverted residual bottleneck (section 3.3).

    Under gradient checkpointing its BatchNorms see every batch twice: gradients stay the same, and
    running statistics change at about twice their momentum.
    """

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, stride: int, activation: str
    ):
        super().__init__()
        channels = in_channels * expansion
        self.has_residual = stride == 1 and in_channels == out_channels
        self.expand = MobileFaceNetConvLayer(in_channels, channels, activation=activation)
        self.depthwise = MobileFaceNetConvLayer(
            channels, channels, kernel_size=3, stride=stride, groups=channels, activation=activation
        )
        self.project = MobileFaceNetConvLayer(channels, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        output = self.project(self.depthwise(self.expand(hidden_states)))
        return hidden_states + output if self.has_residual else output


class MobileFaceNetEncoder(nn.Module):
    """Stem, stages of bottlenecks and a last pointwise layer."""

    def __init__(self, config: MobileFaceNetConfig):
        super().__init__()
        width, activation = config.width_multiplier, config.hidden_act
        channels = scale_channels(config.stem_channels, width)
        self.num_channels = config.num_channels
        self.num_features = [channels]
        stem_activation = config.stem_hidden_act or activation
        stem = [
            MobileFaceNetConvLayer(
                config.num_channels, channels, kernel_size=3, stride=2, activation=activation
            ),
            MobileFaceNetConvLayer(
                channels, channels, kernel_size=3, groups=channels, activation=stem_activation
            ),
        ]
        if config.stem_pointwise:
            stem.append(MobileFaceNetConvLayer(channels, channels, activation=stem_activation))
        self.stem = nn.Sequential(*stem)

        self.stages = nn.ModuleList()
        for expansion, out_channels, repeats, stride in config.stages:
            out_channels = scale_channels(out_channels, width)
            blocks = [
                MobileFaceNetBottleneck(
                    channels if i == 0 else out_channels,
                    out_channels,
                    expansion,
                    stride if i == 0 else 1,
                    activation,
                )
                for i in range(repeats)
            ]
            self.stages.append(nn.Sequential(*blocks))
            channels = out_channels
            self.num_features.append(channels)

        self.num_features.append(scale_channels(config.feature_channels, width))
        self.features = MobileFaceNetConvLayer(
            channels, self.num_features[-1], activation=activation
        )

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one feature map per name in `config.stage_names`."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values must be of shape (batch, {self.num_channels}, height, width), got "
                f"{tuple(pixel_values.shape)}"
            )
        feature_maps = [self.stem(pixel_values)]
        for stage in self.stages:
            feature_maps.append(stage(feature_maps[-1]))
        feature_maps.append(self.features(feature_maps[-1]))
        return tuple(feature_maps)


class MobileFaceNetPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading shared by the backbone and the embedding model."""

    config: MobileFaceNetConfig
    config_class = MobileFaceNetConfig
    base_model_prefix = "mobilefacenet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # without attention, any implementation set for the whole model is fine
    _no_split_modules = ("MobileFaceNetBottleneck",)

    def save_pretrained(self, save_directory, **kwargs):
        """Save weights, config and code, loadable through every Auto class."""
        self.config.auto_map = {
            "AutoConfig": "configuration_mobilefacenet.MobileFaceNetConfig",
            "AutoModel": "modeling_mobilefacenet.MobileFaceNetModel",
            "AutoBackbone": "modeling_mobilefacenet.MobileFaceNetBackbone",
        }
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)


class MobileFaceNetModel(MobileFaceNetPreTrainedModel):
    """MobileFaceNet with its face embedding.

    The embedding is a global depthwise convolution and a linear projection (section 3.2).
    """

    def __init__(self, config: MobileFaceNetConfig):
        super().__init__(config)
        self.encoder = MobileFaceNetEncoder(config)
        channels = self.encoder.num_features[-1]
        stride = 2 * math.prod(stage[-1] for stage in config.stages)  # 2 is the stem's
        self.global_depthwise = MobileFaceNetConvLayer(
            channels,
            channels,
            kernel_size=math.ceil(config.image_size / stride),
            groups=channels,
            padding=0,
        )
        self.embedding = MobileFaceNetConvLayer(channels, config.embedding_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Compute feature maps and the face embedding.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, image_size, image_size)`):
                Normalised faces.
            output_hidden_states (`bool`, *optional*):
                Whether to return the feature map of every stage.

        Returns:
            `BaseModelOutputWithPoolingAndNoAttention`: `last_hidden_state` of shape `(batch,
            feature_channels, height, width)` and `pooler_output`, the embedding, of shape `(batch,
            embedding_size)`, not normalised to length 1.

        Raises:
            ValueError: If the image size is not the config's `image_size`.
        """
        feature_maps = self.encoder(pixel_values)
        kernel_size = self.global_depthwise.convolution.kernel_size
        if tuple(feature_maps[-1].shape[-2:]) != kernel_size:
            raise ValueError(
                f"the embedding needs images of {self.config.image_size} pixels a side, got "
                f"{pixel_values.shape[-2]}x{pixel_values.shape[-1]}"
            )
        embedding = self.embedding(self.global_depthwise(feature_maps[-1])).flatten(1)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=feature_maps[-1],
            pooler_output=embedding,
            hidden_states=feature_maps if output_hidden_states else None,
        )


class MobileFaceNetBackbone(BackboneMixin, MobileFaceNetPreTrainedModel):
    """MobileFaceNet's feature maps, for images of any size, for `AutoBackbone` and Label2label."""

    has_attentions = False
    _keys_to_ignore_on_load_unexpected = (r"global_depthwise\.", r"embedding\.")

    def __init__(self, config: MobileFaceNetConfig):
        super().__init__(config)
        self.encoder = MobileFaceNetEncoder(config)
        self.num_features = self.encoder.num_features
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput:
        """Compute feature maps.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                Normalised images of any size.
            output_hidden_states (`bool`, *optional*):
                Whether to return the feature map of every stage.

        Returns:
            `BackboneOutput`: `feature_maps`, one `(batch, channels, height, width)` per name in
            `config.out_features`.
        """
        hidden_states = self.encoder(pixel_values)
        feature_maps = tuple(
            feature_map
            for name, feature_map in zip(self.stage_names, hidden_states, strict=True)
            if name in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states)


__all__ = [
    "MobileFaceNetBackbone",
    "MobileFaceNetModel",
    "MobileFaceNetPreTrainedModel",
]
