"""Label2label configuration."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING
from transformers.configuration_utils import PreTrainedConfig

from .configuration_mobilefacenet import MobileFaceNetConfig


@strict
class Label2LabelConfig(PreTrainedConfig):
    r"""
    Configuration of Label2label (ECCV 2022) over any transformers backbone. Attributes are named by
    `id2label`.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            The image encoder: `MobileFaceNetConfig()` by default, or any config that `AutoBackbone`
            knows, such as `ResNetConfig`. The head attends to the features of its `out_features`:
            the last feature map alone by default.
        head_type (`str`, *optional*, defaults to `"label2label"`):
            `"fc"`, a linear layer on pooled features; `"query2label"`, the attribute query network
            alone; or `"label2label"`, the query network and the image-conditioned masked language
            model.
        hidden_size (`int`, *optional*, defaults to 128):
            Width of queries, words and image tokens; a multiple of 4 and of `num_attention_heads`.
        intermediate_size (`int`, *optional*, defaults to 256):
            Width of the feed-forward layers.
        num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of every decoder layer.
        num_query_layers (`int`, *optional*, defaults to 1):
            Decoder layers of the attribute query network.
        num_mlm_layers (`int`, *optional*, defaults to 1):
            Decoder layers of the image-conditioned masked language model.
        words_see_queries (`bool`, *optional*, defaults to `False`):
            Whether what the query network saw of an attribute is added to its word, so that the
            language model need not find it again. The papers' model has it not.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the feed-forward layers.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout, in 0..1, of attention, feed-forward and residual branches.
        mask_probability (`float`, *optional*, defaults to 0.1):
            Probability, in 0..1, that a word is masked in training.
        unmasked_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of words that were not masked in the language model's loss (`mask_ratio` in the
            original code); masked ones weigh 1.
        mlm_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight (lambda) of the language model's loss beside the query network's.
        logit_clamp (`float`, *optional*, defaults to 10.0):
            Logits are clamped to plus or minus this inside the loss.
        temperature (`float`, *optional*, defaults to 1.0):
            The logits are divided by it, so that their sigmoid is a calibrated probability
            (arXiv:1706.04599); fitted after training.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of linear layers and embeddings at initialisation.
    """

    model_type = "label2label"
    # What transformers' Trainer leaves out of the predictions that `compute_metrics` receives.
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
        if self.backbone_config is None:
            self.backbone_config = MobileFaceNetConfig()
        elif isinstance(self.backbone_config, dict):
            backbone_config = dict(self.backbone_config)
            model_type = backbone_config.pop("model_type", MobileFaceNetConfig.model_type)
            # Not through AutoConfig: code that travels with the weights must find its own backbone
            # without having registered it.
            config_class = (
                MobileFaceNetConfig
                if model_type == MobileFaceNetConfig.model_type
                else CONFIG_MAPPING[model_type]
            )
            self.backbone_config = config_class(**backbone_config)
        super().__post_init__(**kwargs)

    @property
    def sub_configs(self) -> dict[str, type[PreTrainedConfig]]:
        """The backbone's config class by its field, as transformers asks of composite configs."""
        return {"backbone_config": type(self.backbone_config)}

    def validate_architecture(self):
        """Raises ValueError where the head cannot be built."""
        if self.head_type not in ("fc", "query2label", "label2label"):
            raise ValueError(
                f"head_type must be 'fc', 'query2label' or 'label2label', got {self.head_type!r}"
            )
        if not getattr(self.backbone_config, "out_features", True):
            raise ValueError("the backbone's out_features are empty: the head needs one at least")
        sizes = ("hidden_size", "intermediate_size", "num_attention_heads")
        for name in (*sizes, "num_query_layers", "num_mlm_layers", "logit_clamp", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_size % 4 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "hidden_size must be a multiple of 4 and of num_attention_heads, got "
                f"{self.hidden_size} and {self.num_attention_heads}"
            )
        for name in ("dropout", "mask_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")


__all__ = ["Label2LabelConfig"]
