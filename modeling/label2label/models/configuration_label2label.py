"""Label2label configuration."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING
from transformers.configuration_utils import PreTrainedConfig

from .configuration_mobilefacenet import MAX_PARAMETERS, MobileFaceNetConfig

HEAD_TYPES = ("fc", "query2label", "label2label")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
MAX_ATTRIBUTES = 10_000


def _backbone_config(
    model_type: str = MobileFaceNetConfig.model_type, **settings: Any
) -> PreTrainedConfig:
    # Not through AutoConfig: loaded from the Hub, this code has not registered its own backbone.
    if model_type == MobileFaceNetConfig.model_type:
        return MobileFaceNetConfig(**settings)
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no backbone of type {model_type!r}")
    return CONFIG_MAPPING[model_type](**settings)


@strict
class Label2LabelConfig(PreTrainedConfig):
    r"""Configuration of Label2label (ECCV 2022) on any transformers backbone.

    `id2label` names the attributes.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            The image encoder: `MobileFaceNetConfig()` by default, or any config that `AutoBackbone`
            takes, such as `ResNetConfig`. The head attends to the feature maps that its
            `out_features` names; by default, to the last one.
        head_type (`str`, *optional*, defaults to `"label2label"`):
            `"fc"`, a linear layer on pooled features; `"query2label"`, the attribute query network
            alone; or `"label2label"`, the query network followed by the image-conditioned masked
            language model.
        hidden_size (`int`, *optional*, defaults to 128):
            Width of queries, words and image tokens; a multiple of 4 and of `num_attention_heads`.
        intermediate_size (`int`, *optional*, defaults to 256):
            Width of the feed-forward layers.
        num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads per decoder layer.
        num_query_layers (`int`, *optional*, defaults to 1):
            Decoder layers of the attribute query network.
        num_mlm_layers (`int`, *optional*, defaults to 1):
            Decoder layers of the image-conditioned masked language model.
        words_see_queries (`bool`, *optional*, defaults to `False`):
            Whether to add each attribute's final query state to its word embedding. An extension:
            the paper's model does not have it.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the feed-forward layers: `"gelu"`, `"gelu_new"`, `"gelu_pytorch_tanh"`,
            `"quick_gelu"`, `"relu"` or `"silu"`.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout rate, in 0..1, in attention, feed-forward and residual branches.
        mask_probability (`float`, *optional*, defaults to 0.1):
            Probability, in 0..1, that a word is masked in training.
        unmasked_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of unmasked words in the language model's loss (`mask_ratio` in the original
            code); masked words have weight 1.
        mlm_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight (lambda) of the language model's loss; the query network's has weight 1.
        logit_clamp (`float`, *optional*, defaults to 10.0):
            The loss clamps logits to plus or minus this value.
        temperature (`float`, *optional*, defaults to 1.0):
            Divisor of the logits, fitted after training so that their sigmoid is a calibrated
            probability (arXiv:1706.04599).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights of linear layers and embeddings.
    """

    model_type = "label2label"
    # transformers' Trainer leaves these out of the predictions that `compute_metrics` receives.
    keys_to_ignore_at_inference: ClassVar = [
        "query_logits",
        "masked_words",
        "hidden_states",
        "attentions",
        "cross_attentions",
    ]

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    head_type: str = "label2label"
    hidden_size: int = 128
    intermediate_size: int = 256
    num_attention_heads: int = 4
    num_query_layers: int = 1
    num_mlm_layers: int = 1
    words_see_queries: bool = False
    hidden_act: str = "gelu"
    dropout: float | int = 0.1
    mask_probability: float | int = 0.1
    unmasked_loss_weight: float | int = 1.0
    mlm_loss_weight: float | int = 1.0
    logit_clamp: float | int = 10.0
    temperature: float | int = 1.0
    initializer_range: float = 0.02
    problem_type: str | None = "multi_label_classification"

    def __post_init__(self, **kwargs):
        num_labels = kwargs.get("num_labels")
        if num_labels is not None and num_labels not in range(1, MAX_ATTRIBUTES + 1):
            raise ValueError(f"num_labels must be in 1..{MAX_ATTRIBUTES}, got {num_labels}")
        try:
            if self.backbone_config is None:
                self.backbone_config = MobileFaceNetConfig()
            elif isinstance(self.backbone_config, dict):
                self.backbone_config = _backbone_config(**self.backbone_config)
            super().__post_init__(**kwargs)
        except (AttributeError, TypeError) as error:  # values of wrong types, not yet validated
            raise ValueError(f"the config cannot be read: {error}") from error

    @property
    def sub_configs(self) -> dict[str, type[PreTrainedConfig]]:
        """Map the backbone's field to its config class, as transformers expects."""
        return {"backbone_config": type(self.backbone_config)}

    def validate_architecture(self):
        """Raise ValueError if the head cannot be built or would be absurdly large."""
        for name, choices in (("head_type", HEAD_TYPES), ("hidden_act", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        if not getattr(self.backbone_config, "out_features", True):
            raise ValueError("the backbone's out_features are empty: the head needs at least one")
        for name, least, most in (
            ("hidden_size", 4, 8192),
            ("intermediate_size", 1, 65536),
            ("num_attention_heads", 1, 8192),
            ("num_query_layers", 1, 100),
            ("num_mlm_layers", 1, 100),
            ("num_labels", 1, MAX_ATTRIBUTES),
            ("dropout", 0, 1),
            ("mask_probability", 0, 1),
            ("unmasked_loss_weight", 0, 1e6),
            ("mlm_loss_weight", 0, 1e6),
            ("logit_clamp", 1e-6, 1e6),
            ("temperature", 1e-6, 1e6),
            ("initializer_range", 0, 1e6),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in {least}..{most}, got {getattr(self, name)}")
        if self.hidden_size % 4 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "hidden_size must be a multiple of 4 and of num_attention_heads, got "
                f"{self.hidden_size} and {self.num_attention_heads}"
            )
        layers = self.num_query_layers + self.num_mlm_layers
        parameters = layers * self.hidden_size * (8 * self.hidden_size + 2 * self.intermediate_size)
        if parameters > MAX_PARAMETERS:
            raise ValueError(f"a head of {parameters:.1e} parameters is too large")
        numbers, names = sorted(self.id2label), set(self.id2label.values())
        if numbers != list(range(self.num_labels)) or len(names) < self.num_labels:
            raise ValueError(
                f"id2label must give each of 0 to {self.num_labels - 1} a different name, got "
                f"{str(self.id2label)[:60]}"
            )


__all__ = ["Label2LabelConfig"]
