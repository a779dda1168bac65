"""MobileFaceNet configuration."""

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

# Ten times the largest published Label2label: a config that asks for more is a mistake.
MAX_PARAMETERS = 2 * 10**9


@strict
class MobileFaceNetConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of MobileFaceNet (arXiv:1804.07573, Table 1); the paper's network by default.

    Args:
        num_channels (`int`, *optional*, defaults to 3):
            Channels of the input image.
        image_size (`int`, *optional*, defaults to 112):
            Height and width, in pixels, that the embedding model takes: its global depthwise
            convolution covers the whole feature map. The backbone alone takes any size.
        stem_channels (`int`, *optional*, defaults to 64):
            Channels of the stem's two convolutions.
        stem_pointwise (`bool`, *optional*, defaults to `False`):
            Whether a pointwise convolution follows the stem's depthwise one, as in some public
            checkpoints.
        stages (`list[list[int]]`, *optional*):
            `(expansion, channels, repeats, stride)` of each stage of bottlenecks.
        feature_channels (`int`, *optional*, defaults to 512):
            Channels of the last feature map.
        embedding_size (`int`, *optional*, defaults to 128):
            Size of the face embedding.
        width_multiplier (`float`, *optional*, defaults to 1.0):
            Factor for every channel count but the embedding's; results are rounded to multiples
            of 8.
        hidden_act (`str`, *optional*, defaults to `"prelu"`):
            `"prelu"`, with one slope per channel as in the paper, `"relu6"` or `"relu"`.
        stem_hidden_act (`str`, *optional*):
            Activation of the stem's depthwise and pointwise convolutions if it differs from
            `hidden_act`, as in some public checkpoints.
        out_features (`list[str]`, *optional*):
            Feature maps that the backbone returns: any of `"stem"`, `"stage1"`, ...,
            `"features"`; the last by default.
        out_indices (`list[int]`, *optional*):
            The same by index.
    """

    model_type = "mobilefacenet"

    num_channels: int = 3
    image_size: int = 112
    stem_channels: int = 64
    stem_pointwise: bool = False
    stages: list[list[int]] | tuple[tuple[int, ...], ...] = (
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    )
    feature_channels: int = 512
    embedding_size: int = 128
    width_multiplier: float | int = 1.0
    hidden_act: str = "prelu"
    stem_hidden_act: str | None = None

    def __post_init__(self, **kwargs):
        self.stages = [list(stage) for stage in self.stages]
        self.stage_names = ["stem", *(f"stage{i + 1}" for i in range(len(self.stages))), "features"]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None),
            out_indices=kwargs.pop("out_indices", None),
        )
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Raise ValueError if the network cannot be built or would be absurdly large."""
        for activation in (self.hidden_act, self.stem_hidden_act or self.hidden_act):
            if activation not in ("prelu", "relu6", "relu"):
                raise ValueError(
                    f"an activation must be 'prelu', 'relu6' or 'relu', got {activation!r}"
                )
        for name, most in (
            ("num_channels", 1024),
            ("image_size", 4096),
            ("stem_channels", 8192),
            ("feature_channels", 8192),
            ("embedding_size", 8192),
            ("width_multiplier", 64),
        ):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be positive and at most {most}, got {getattr(self, name)}"
                )
        blocks, weights = 0, 0
        for stage in self.stages:
            if len(stage) != 4 or min(stage) < 1:
                raise ValueError(
                    f"a stage is (expansion, channels, repeats, stride), all positive; got {stage}"
                )
            expansion, channels, repeats, _ = stage
            blocks += repeats
            weights += repeats * 2 * expansion * channels**2
        if blocks > 1000 or weights * max(1, self.width_multiplier) ** 2 > MAX_PARAMETERS:
            raise ValueError(f"a network of {blocks} blocks of this width is too large")


__all__ = ["MobileFaceNetConfig"]
