"""PyTorch Label2label (ECCV 2022): facial attributes as the words of a sentence, on any backbone.

The file follows the paper's order: image tokens, attribute query network (AQN), pseudo-labels,
words and masks, image-conditioned masked language model (IC-MLM), loss. Comments mark with
"Extension" what the paper's model does not have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import (
    OutputRecorder,
    capture_outputs,
    maybe_install_capturing_hooks,
)

from .configuration_label2label import Label2LabelConfig
from .modeling_mobilefacenet import MobileFaceNetBackbone, MobileFaceNetConfig


@dataclass
class Label2LabelModelOutput(ModelOutput):
    """Output of [`Label2LabelModel`].

    Args:
        last_hidden_state (`torch.FloatTensor`):
            Input of the classifier: `(batch, attributes, hidden_size)`; with the `"fc"` head the
            pooled features, `(batch, channels)`.
        query_logits (`torch.FloatTensor` of shape `(batch, attributes)`, *optional*):
            The attribute query network's prediction; `None` with the `"fc"` head.
        masked_words (`torch.BoolTensor` of shape `(batch, attributes)`, *optional*):
            True where a word was masked; only in training, with the `"label2label"` head.
        hidden_states (`tuple[torch.FloatTensor]`, *optional*):
            The queries, then the output of each decoder layer, the query network's first: `(batch,
            attributes, hidden_size)`.
        attentions (`tuple[torch.FloatTensor]`, *optional*):
            Self-attention weights of each decoder layer, the query network's first: `(batch, heads,
            attributes, attributes)`.
        cross_attentions (`tuple[torch.FloatTensor]`, *optional*):
            Attention weights of each decoder layer over the image: `(batch, heads, attributes,
            height * width)`, the backbone's last feature map in row-major order.
    """

    last_hidden_state: torch.Tensor | None = None
    query_logits: torch.Tensor | None = None
    masked_words: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class Label2LabelImageClassifierOutput(ModelOutput):
    """Output of [`Label2LabelForImageClassification`].

    Args:
        loss (`torch.FloatTensor`, *optional*, returned with `labels`):
            The query network's loss plus `mlm_loss_weight` times the language model's, a scalar.
        logits (`torch.FloatTensor` of shape `(batch, attributes)`):
            The prediction; the sigmoid is the probability that the attribute is present.
        query_logits, masked_words, hidden_states, attentions, cross_attentions (*optional*):
            See [`Label2LabelModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    query_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    masked_words: torch.Tensor | None = None


# 1. Backbone features and sine positions


def join_feature_maps(feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Concatenate feature maps along channels, the last one first.

    Each is `(batch, channels, height, width)`; the others are averaged to the last one's size.
    """
    *earlier, last = feature_maps
    if not earlier:
        return last
    # Extension: the paper's model attends to the last feature map only.
    height, width = last.shape[-2:]
    averaged = [nn.functional.adaptive_avg_pool2d(x, (height, width)) for x in earlier]
    return torch.cat([last, *averaged], dim=1)


def sine_position_embedding(height: int, width: int, hidden_size: int) -> torch.Tensor:
    """Embed the positions of a feature map as DETR does, as `(height * width, hidden_size)`.

    Half of the channels encode the row, half the column, with positions normalised to 0..2 pi.
    """
    frequencies = hidden_size // 4
    wavelengths = 10000.0 ** (torch.arange(frequencies, dtype=torch.float32) / frequencies)
    embeddings = []
    for size in (height, width):
        positions = torch.arange(1, size + 1, dtype=torch.float32) / size * 2 * math.pi
        angles = positions[:, None] / wavelengths  # (size, frequencies)
        embeddings.append(torch.cat([angles.sin(), angles.cos()], dim=-1))
    rows = embeddings[0][:, None].expand(-1, width, -1)
    columns = embeddings[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


# Transformer decoder, the architecture of both AQN and IC-MLM


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, queries, head_dim)
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,  # every word attends to every word and image token
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute scaled dot-product attention; return its output and the attention weights."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    dropped = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), weights


class Label2LabelAttention(nn.Module):
    """Multi-head attention of queries over keys, through transformers' attention interface."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, attributes, hidden)
        key_value_states: torch.Tensor,  # (batch, tokens, hidden)
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = (
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection, states in (
                (self.q_proj, hidden_states),
                (self.k_proj, key_value_states),
                (self.v_proj, key_value_states),
            )
        )  # (batch, heads, attributes or tokens, head_dim)
        attention: Callable = eager_attention_forward
        # Fused kernels do not return weights, and transformers' kernels fail on an empty batch.
        weights_wanted = kwargs.get("output_attentions", self.config.output_attentions)
        if not weights_wanted and hidden_states.shape[0] > 0:
            attention = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask=None,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return self.o_proj(output.flatten(2)), weights


class Label2LabelDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm decoder layer: self-attention, cross-attention to the image, feed-forward."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.self_attention_norm = nn.LayerNorm(config.hidden_size)
        self.self_attention = Label2LabelAttention(config)
        self.cross_attention_norm = nn.LayerNorm(config.hidden_size)
        self.cross_attention = Label2LabelAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.hidden_size, config.intermediate_size),
            ACT2FN[config.hidden_act],
            nn.Dropout(config.dropout),
            nn.Linear(config.intermediate_size, config.hidden_size),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, attributes, hidden)
        image_tokens: torch.Tensor,  # (batch, height * width, hidden)
        **kwargs: Any,
    ) -> torch.Tensor:
        normed = self.self_attention_norm(hidden_states)
        output, _ = self.self_attention(normed, normed, **kwargs)
        hidden_states = hidden_states + self.dropout(output)
        normed = self.cross_attention_norm(hidden_states)
        output, _ = self.cross_attention(normed, image_tokens, **kwargs)
        hidden_states = hidden_states + self.dropout(output)
        output = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(output)


class Label2LabelDecoder(nn.Module):
    """Decoder layers and a final layer norm."""

    def __init__(self, config: Label2LabelConfig, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Label2LabelDecoderLayer(config) for _ in range(num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, image_tokens: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states, image_tokens, **kwargs)
        return self.norm(hidden_states)


class Label2LabelGroupWiseLinear(nn.Module):
    """One weight vector and bias per attribute: `(batch, A, hidden)` to `(batch, A)`."""

    def __init__(self, num_attributes: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_attributes, hidden_size))
        self.bias = nn.Parameter(torch.empty(num_attributes))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # keepdim, then squeeze: without, OpenVINO fuses the bias into the sum, and its results are
        # wrong for more than one image (openvinotoolkit/openvino#23616).
        return (hidden_states * self.weight).sum(dim=-1, keepdim=True).squeeze(-1) + self.bias


# 2. Attribute query network


class Label2LabelAttributeQueryNetwork(nn.Module):
    """Attribute query network (AQN): one learnable query per attribute attends to the image."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.query_embeddings = nn.Embedding(config.num_labels, config.hidden_size)
        self.decoder = Label2LabelDecoder(config, config.num_query_layers)
        self.classifier = Label2LabelGroupWiseLinear(config.num_labels, config.hidden_size)

    def forward(
        self, image_tokens: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Through the embedding's forward, whose hooks load offloaded weights.
        attributes = torch.arange(self.query_embeddings.num_embeddings, device=image_tokens.device)
        queries = self.query_embeddings(attributes).expand(image_tokens.shape[0], -1, -1)
        hidden_states = self.decoder(queries, image_tokens, **kwargs)
        return self.classifier(hidden_states), hidden_states


# 3. Pseudo-labels: query logits > 0. With mixup, words are mixed as well as images


def mix_words(
    words: torch.Tensor,  # (batch, attributes), pseudo-labels
    labels: torch.Tensor,  # (batch, attributes); 1, 0, soft, or -100
    mixup_labels: torch.Tensor,
    mixup_weight: float | torch.Tensor,  # of `labels`, 0..1
) -> torch.Tensor:
    """Mix the words of two images, as the released code does.

    A word is the label of the image with the larger weight if the prediction agrees with it, else
    the other image's label; the prediction itself if that label is unknown.
    """
    swap = torch.as_tensor(mixup_weight, device=words.device) < 0.5
    larger = torch.where(swap, mixup_labels, labels)
    smaller = torch.where(swap, labels, mixup_labels)
    agrees = (larger >= 0) & ((larger > 0.5) == words)
    return torch.where(agrees | (smaller < 0), words, smaller > 0.5)


# 3 to 5. Words, masks, image-conditioned masked language model


class Label2LabelMaskedLanguageModel(nn.Module):
    """Image-conditioned masked language model (IC-MLM): recovers each word; masks in training."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.num_attributes = config.num_labels
        self.mask_probability = config.mask_probability
        # Rows 0..A-1 are the words "absent", rows A..2A-1 the words "present".
        self.word_embeddings = nn.Embedding(2 * config.num_labels, config.hidden_size)
        self.mask_embeddings = nn.Embedding(config.num_labels, config.hidden_size)
        # Extension: added to words given by the caller, as they are surer than pseudo-labels.
        self.known_embedding = nn.Parameter(torch.zeros(config.num_labels, config.hidden_size))
        # Extension (`words_see_queries`): query states are added to the words.
        self.query_projection = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False)
            if config.words_see_queries
            else None
        )
        self.decoder = Label2LabelDecoder(config, config.num_mlm_layers)

    def forward(
        self,
        words: torch.Tensor,  # (batch, attributes), true where present
        known_words: torch.Tensor | None,  # (batch, attributes), true where given
        query_states: torch.Tensor,  # (batch, attributes, hidden)
        image_tokens: torch.Tensor,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attributes = torch.arange(self.num_attributes, device=words.device)
        sentence = self.word_embeddings(attributes + self.num_attributes * words)
        masked_words = None
        if self.training:
            if known_words is None:
                # The embedding then has a gradient in every step, as data parallelism expects.
                known_words = torch.zeros_like(words)
            masked_words = torch.rand(words.shape, device=words.device) < self.mask_probability
            masked_words &= ~known_words
            masks = self.mask_embeddings(attributes)
            sentence = torch.where(masked_words[..., None], masks, sentence)
        if known_words is not None:
            sentence = sentence + known_words[..., None] * self.known_embedding
        if self.query_projection is not None:
            sentence = sentence + self.query_projection(query_states)
        return self.decoder(sentence, image_tokens, **kwargs), masked_words


class Label2LabelBatchNorm(nn.BatchNorm1d):
    """BatchNorm over attributes; a batch of one, without variance, uses running statistics."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    momentum: float

    def forward(self, logits: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        alone = logits.shape[0] < 2
        if not self.training or (given is None and not alone):
            return super().forward(logits)
        mean, variance = self.running_mean, self.running_var
        # Extension: logits of words given by the caller are left out of the statistics.
        if given is not None and not alone:
            guessed = (~given).to(logits.dtype)
            count = guessed.sum(dim=0).clamp(min=1)
            mean = (logits * guessed).sum(dim=0) / count
            variance = ((logits - mean).square() * guessed).sum(dim=0) / count
            with torch.no_grad():
                share = self.momentum * (count > 1).to(mean.dtype)
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(unbiased, share)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (logits - mean) * scale + self.bias


class Label2LabelCoupling(nn.Module):
    """Extension: add the residuals of known words to the other attributes' logits.

    A residual is the label minus the query network's probability; each pair of attributes has one
    weight.
    """

    def __init__(self, num_attributes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_attributes, num_attributes))  # known, other

    def forward(
        self, query_logits: torch.Tensor, known_labels: torch.Tensor | None
    ) -> torch.Tensor:
        if known_labels is None:
            # The weights then have a gradient in every step, as data parallelism expects.
            return torch.zeros_like(query_logits) @ self.weight
        residual = known_labels.to(query_logits.dtype) - query_logits.sigmoid()
        return residual.masked_fill(known_labels < 0, 0.0) @ self.weight


# 6. Loss


def weighted_binary_cross_entropy(
    logits: torch.Tensor,  # (batch, attributes)
    labels: torch.Tensor,  # (batch, attributes); 1, 0, soft in between, or -100 to ignore
    weights: torch.Tensor | None = None,  # (batch, attributes), not negative; 1 by default
    reduction: str = "mean",
) -> torch.Tensor:
    """Compute binary cross-entropy over known labels, normalised by the sum of their weights.

    The result is a scalar with `"mean"`, `(batch,)` with `"image"`; 0 if all labels are ignored.
    """
    known = (labels >= 0).to(logits.dtype)
    weights = known if weights is None else weights * known
    targets = labels.to(logits.dtype).clamp(min=0)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    axes = (0, 1) if reduction == "mean" else 1
    least = torch.finfo(logits.dtype).tiny
    return (losses * weights).sum(dim=axes) / weights.sum(dim=axes).clamp(min=least)


def check_labels(
    name: str, labels: torch.Tensor | None, shape: tuple[int, int], soft: bool = True
) -> None:
    """Raise ValueError if labels have another shape, or values but 0, 1, -100 or soft ones."""
    if labels is None:
        return
    if tuple(labels.shape) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {tuple(labels.shape)}")
    if torch.compiler.is_compiling() or labels.is_meta:  # values are not known
        return
    # Rounding can take mixed soft labels slightly above 1.
    valid = ((labels >= 0) & (labels <= 1.001)) if soft else ((labels == 0) | (labels == 1))
    valid |= labels == -100
    if not valid.all():
        wrong = labels[~valid].flatten()[0].item()
        raise ValueError(
            f"{name} must be 1, 0{', soft in between,' if soft else ''} or -100 if unknown, got "
            f"{wrong}" + ("; convert labels -1 and 1 to 0 and 1" if wrong == -1 else "")
        )


class Label2LabelPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and saving shared by the models of this file."""

    config: Label2LabelConfig
    config_class = Label2LabelConfig
    base_model_prefix = "label2label"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("Label2LabelDecoderLayer",)
    _supports_sdpa = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": Label2LabelDecoderLayer,
        "attentions": OutputRecorder(Label2LabelAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(
            Label2LabelAttention, index=1, layer_name="cross_attention"
        ),
    }
    # Without this, transformers' Trainer would infer from `**kwargs` that the model divides the
    # loss by `num_items_in_batch`, and would not divide it by the gradient accumulation steps.
    accepts_loss_kwargs = False

    def save_pretrained(self, save_directory, **kwargs):
        """Save weights, config and code, loadable through every Auto class."""
        module = "modeling_label2label"
        self.config.auto_map = {
            "AutoConfig": "configuration_label2label.Label2LabelConfig",
            "AutoModel": f"{module}.Label2LabelModel",
            "AutoModelForImageClassification": f"{module}.Label2LabelForImageClassification",
        }
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, Label2LabelGroupWiseLinear):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, Label2LabelMaskedLanguageModel):
            init.zeros_(module.known_embedding)
        elif isinstance(module, Label2LabelCoupling):
            init.zeros_(module.weight)


class Label2LabelModel(Label2LabelPreTrainedModel):
    """Backbone, query network and masked language model, without the final classifier."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__(config)
        backbone_config: Any = config.backbone_config
        # Not by isinstance: with trust_remote_code, config and model each import their own copy.
        self.backbone = (
            MobileFaceNetBackbone(backbone_config)
            if backbone_config.model_type == MobileFaceNetConfig.model_type
            else AutoBackbone.from_config(backbone_config)
        )
        if config.head_type != "fc":
            self.input_projection = nn.Linear(sum(self.backbone.channels), config.hidden_size)
            self.query_network = Label2LabelAttributeQueryNetwork(config)
        if config.head_type == "label2label":
            self.masked_language_model = Label2LabelMaskedLanguageModel(config)
        self.post_init()
        if any(module._forward_hooks for module in self.backbone.modules()):
            # Backbones that record their own hidden states are hooked when they are built. The
            # first call that asks for attentions would hook them again, and their feature maps
            # would be others from then on: so the head is hooked now, without the backbone.
            self._modules["backbone"], backbone = None, self.backbone
            maybe_install_capturing_hooks(self)
            self._modules["backbone"] = backbone

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        known_labels: torch.Tensor | None = None,
        mixup: tuple[torch.Tensor, torch.Tensor, float | torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> Label2LabelModelOutput:
        """Compute query logits and the hidden states that the classifier reads.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                Normalised faces.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                Words given by the caller: 1 or 0, or -100 if unknown. They replace the
                pseudo-labels. Only the `"label2label"` head reads them.
            mixup (`tuple`, *optional*):
                In training: the labels of both mixed images, each of shape `(batch, attributes)`,
                and the first image's weight in 0..1. The words are then mixed too.
            output_attentions, output_hidden_states (`bool`, *optional*):
                Whether to return the attention weights and hidden states of the decoders.

        Returns:
            [`Label2LabelModelOutput`]
        """
        feature_map = join_feature_maps(self.backbone(pixel_values, return_dict=True).feature_maps)
        if self.config.head_type == "fc":
            return Label2LabelModelOutput(last_hidden_state=feature_map.mean(dim=(2, 3)))
        height, width = feature_map.shape[-2:]
        image_tokens = self.input_projection(feature_map.flatten(2).transpose(1, 2))
        positions = sine_position_embedding(height, width, self.config.hidden_size)
        image_tokens = image_tokens + positions.to(image_tokens)  # (batch, height * width, hidden)
        query_logits, hidden_states = self.query_network(image_tokens, **kwargs)
        masked_words = None
        if self.config.head_type == "label2label":
            words = query_logits > 0  # pseudo-labels
            if mixup is not None:
                words = mix_words(words, *mixup)
            known_words = None
            # Extension: words given by the caller.
            if known_labels is not None:
                known_words = known_labels >= 0
                words = (known_labels > 0) | (words & ~known_words)
            hidden_states, masked_words = self.masked_language_model(
                words, known_words, hidden_states, image_tokens, **kwargs
            )
        return Label2LabelModelOutput(
            last_hidden_state=hidden_states, query_logits=query_logits, masked_words=masked_words
        )


class Label2LabelForImageClassification(Label2LabelPreTrainedModel):
    """Label2label for multi-label classification of facial attributes."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__(config)
        self.label2label = Label2LabelModel(config)
        self.classifier: nn.Linear | Label2LabelGroupWiseLinear
        if config.head_type == "fc":
            channels = sum(self.label2label.backbone.channels)
            self.classifier = nn.Linear(channels, config.num_labels)
        elif config.head_type == "label2label":
            self.classifier = Label2LabelGroupWiseLinear(config.num_labels, config.hidden_size)
            self.normalization = Label2LabelBatchNorm(config.num_labels)
            self.coupling = Label2LabelCoupling(config.num_labels)
        self.post_init()

    # transformers' Trainer requires in each batch every argument with "label" in its name, so
    # optional ones are read from `kwargs`. To train with them, set `remove_unused_columns=False`.
    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Label2LabelImageClassifierOutput:
        """Predict attributes and, with `labels`, compute the loss.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                Normalised faces.
            labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                1, 0, soft in between, or -100 to ignore.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                Words given by the caller: 1 or 0, or -100 if unknown. They condition the other
                attributes with the `"label2label"` head; the other heads ignore them.
            mixup (`tuple[torch.Tensor, float]`, *optional*):
                In training, with `labels`: the labels of the second images of the mixup, of shape
                `(batch, attributes)`, and the first images' weight in 0..1.
            output_attentions, output_hidden_states (`bool`, *optional*):
                Whether to return the attention weights and hidden states of the decoders.

        Returns:
            [`Label2LabelImageClassifierOutput`]

        Raises:
            ValueError: If labels have another shape or other values, or `mixup` is given without
                `labels`.
        """
        known_labels = kwargs.pop("known_labels", None)
        mixup = kwargs.pop("mixup", None)
        if mixup is not None and labels is None:
            raise ValueError("mixup needs the labels of the first images too")
        shape = (pixel_values.shape[0], self.config.num_labels)
        check_labels("labels", labels, shape)
        check_labels("known_labels", known_labels, shape, soft=False)
        check_labels("mixup", mixup and mixup[0], shape)

        outputs = self.label2label(
            pixel_values,
            known_labels=known_labels,
            mixup=None if mixup is None else (labels, *mixup),
            return_dict=True,
            **kwargs,
        )
        if self.config.head_type == "query2label":
            logits = outputs.query_logits
        else:
            logits = self.classifier(outputs.last_hidden_state)
        if self.config.head_type == "label2label":
            given = (known_labels >= 0,) if self.training and known_labels is not None else ()
            logits = self.normalization(logits, *given)
            # Extension: residuals of known words change the other attributes' logits.
            if known_labels is not None or self.training:
                logits = logits + self.coupling(outputs.query_logits, known_labels)
        # Extension: temperature, fitted after training (arXiv:1706.04599).
        logits = logits / self.config.temperature

        loss = None
        if labels is not None:
            loss = self.compute_loss(
                logits, labels, outputs.query_logits, outputs.masked_words, known_labels, mixup
            )
        return Label2LabelImageClassifierOutput(
            loss=loss,
            logits=logits,
            query_logits=outputs.query_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            masked_words=outputs.masked_words,
        )

    def compute_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        query_logits: torch.Tensor | None = None,
        masked_words: torch.Tensor | None = None,
        known_labels: torch.Tensor | None = None,
        mixup: tuple[torch.Tensor, float | torch.Tensor] | None = None,
        reduction: str = "mean",
    ) -> torch.Tensor:
        """Compute the query network's loss plus `mlm_loss_weight` times the language model's.

        Args:
            logits (`torch.FloatTensor` of shape `(batch, attributes)`): The prediction.
            labels (`torch.Tensor` of shape `(batch, attributes)`): 1, 0, soft in between, or -100
                to ignore.
            query_logits, masked_words (*optional*): As the model returned them.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*): Words given
                to the language model, which are left out of its loss.
            mixup (`tuple[torch.Tensor, float]`, *optional*): As in `forward`; its weight mixes the
                losses of both images' labels.
            reduction (`str`): `"mean"` over all known labels of the batch, or `"image"`: the mean
                per image, so that an image with two known labels weighs as much as one with forty.

        Returns:
            `torch.FloatTensor`: float32, a scalar, or `(batch,)` with `"image"`; 0 without a known
            label.
        """
        if mixup is not None:
            mixup_labels, weight = mixup
            arguments = (query_logits, masked_words, known_labels, None, reduction)
            first = self.compute_loss(logits, labels, *arguments)
            second = self.compute_loss(logits, mixup_labels, *arguments)
            return weight * first + (1 - weight) * second

        limit = self.config.logit_clamp
        logits = logits.float().clamp(-limit, limit)
        if self.config.head_type != "label2label" or query_logits is None:
            return weighted_binary_cross_entropy(logits, labels, reduction=reduction)
        weights = torch.ones_like(logits)
        if masked_words is not None:
            weights.masked_fill_(~masked_words, float(self.config.unmasked_loss_weight))
        if known_labels is not None:
            weights.masked_fill_(known_labels >= 0, 0.0)  # Extension
        query_logits = query_logits.float().clamp(-limit, limit)
        query_loss = weighted_binary_cross_entropy(query_logits, labels, reduction=reduction)
        mlm_loss = weighted_binary_cross_entropy(logits, labels, weights, reduction)
        return query_loss + self.config.mlm_loss_weight * mlm_loss


__all__ = [
    "Label2LabelForImageClassification",
    "Label2LabelModel",
    "Label2LabelPreTrainedModel",
]
