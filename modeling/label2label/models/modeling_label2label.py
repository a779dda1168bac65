"""PyTorch Label2label: facial attributes as the words of a sentence (ECCV 2022), over any
backbone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_label2label import Label2LabelConfig
from .modeling_label2label_decoder import Label2LabelDecoder, sine_position_embedding
from .modeling_mobilefacenet import MobileFaceNetBackbone, MobileFaceNetConfig


@dataclass
class Label2LabelModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`):
            What the classifier reads: `(batch, attributes, hidden_size)`, or `(batch, channels)`,
            the pooled features, with the `"fc"` head.
        query_logits (`torch.FloatTensor` of shape `(batch, attributes)`, *optional*):
            The attribute query network's guess; `None` with the `"fc"` head.
        masked_words (`torch.BoolTensor` of shape `(batch, attributes)`, *optional*):
            Which words were masked; in training, with the `"label2label"` head.
        attentions (`tuple[torch.FloatTensor]`, *optional*):
            Self-attention of every decoder layer, queries' first: `(batch, heads, attributes,
            attributes)`.
        cross_attentions (`tuple[torch.FloatTensor]`, *optional*):
            Attention of every decoder layer to the image: `(batch, heads, attributes, height *
            width)`, of the backbone's last feature map in row-major order.
    """

    last_hidden_state: torch.Tensor | None = None
    query_logits: torch.Tensor | None = None
    masked_words: torch.Tensor | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class Label2LabelImageClassifierOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*, returned with `labels`):
            Query loss plus `mlm_loss_weight` times the language model's, a scalar.
        logits (`torch.FloatTensor` of shape `(batch, attributes)`):
            The prediction; its sigmoid is the probability that the attribute is present.
        query_logits (`torch.FloatTensor` of shape `(batch, attributes)`, *optional*):
            The attribute query network's guess; `None` with the `"fc"` head.
        attentions, cross_attentions (`tuple[torch.FloatTensor]`, *optional*):
            See [`Label2LabelModelOutput`].
        masked_words (`torch.BoolTensor` of shape `(batch, attributes)`, *optional*):
            Which words were masked; in training, with the `"label2label"` head.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    query_logits: torch.Tensor | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None
    masked_words: torch.Tensor | None = None


def masked_binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Binary cross-entropy over the labels that are known, normalised by the sum of their weights.

    Args:
        logits (`torch.FloatTensor` of shape `(batch, attributes)`).
        labels (`torch.Tensor` of shape `(batch, attributes)`): 1, 0, soft in between, or -100 to
            ignore.
        weights (`torch.FloatTensor` of shape `(batch, attributes)`, *optional*): Not negative; 1 by
            default.

    Returns:
        `torch.FloatTensor`: a scalar, 0 where every label is ignored.
    """
    known = labels >= 0
    targets = labels.to(logits.dtype).clamp(min=0)
    weights = known.to(logits.dtype) if weights is None else weights * known
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)


class GroupWiseLinear(nn.Module):
    """A weight vector and bias an attribute: `(batch, A, hidden)` to `(batch, A)`."""

    def __init__(self, num_attributes: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_attributes, hidden_size))
        self.bias = nn.Parameter(torch.empty(num_attributes))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return (hidden_states * self.weight).sum(dim=-1) + self.bias


class LogitBatchNorm(nn.BatchNorm1d):
    """
    BatchNorm over attributes. A batch of one, without variance, takes running statistics. Logits of
    words that were given, surer than any guess, have no part in the statistics.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    momentum: float

    def forward(self, logits: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        alone = logits.shape[0] == 1
        if not self.training or (given is None and not alone):
            return super().forward(logits)
        mean, variance = self.running_mean, self.running_var
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


class AttributeQueryNetwork(nn.Module):
    """Guesses each attribute from the image by one learnable query (AQN)."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.query_embeddings = nn.Embedding(config.num_labels, config.hidden_size)
        self.decoder = Label2LabelDecoder(config, config.num_query_layers)
        self.classifier = GroupWiseLinear(config.num_labels, config.hidden_size)

    def forward(
        self, image_tokens: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        queries = self.query_embeddings.weight.expand(image_tokens.shape[0], -1, -1)
        hidden_states, attentions, cross_attentions = self.decoder(
            queries, image_tokens, output_attentions
        )
        return self.classifier(hidden_states), hidden_states, attentions, cross_attentions


class ImageConditionedMaskedLanguageModel(nn.Module):
    """Recovers every word from the sentence, some of it masked, and the image (IC-MLM)."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__()
        self.num_attributes = config.num_labels
        self.mask_probability = config.mask_probability
        # Rows 0..A-1 are the words "absent", rows A..2A-1 the words "present".
        self.word_embeddings = nn.Embedding(2 * config.num_labels, config.hidden_size)
        self.mask_embeddings = nn.Embedding(config.num_labels, config.hidden_size)
        # Added to words that the caller knows: they are surer than the query network's guesses.
        self.known_embedding = nn.Parameter(torch.zeros(config.num_labels, config.hidden_size))
        self.query_projection = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False)
            if config.words_see_queries
            else None
        )
        self.decoder = Label2LabelDecoder(config, config.num_mlm_layers)

    def forward(
        self,
        words: torch.Tensor,  # (batch, attributes), true where present
        known_words: torch.Tensor | None,  # (batch, attributes), true where the caller gave it
        query_states: torch.Tensor,  # (batch, attributes, hidden), what the query network saw
        image_tokens: torch.Tensor,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor], list[torch.Tensor]]:
        attributes = torch.arange(self.num_attributes, device=words.device)
        sentence = self.word_embeddings(attributes + self.num_attributes * words)
        masked_words = None
        if self.training:
            if known_words is None:
                # So that its embedding has a gradient in every step, as data parallelism expects.
                known_words = torch.zeros_like(words)
            masked_words = torch.rand(words.shape, device=words.device) < self.mask_probability
            masked_words &= ~known_words
            sentence = torch.where(
                masked_words[..., None], self.mask_embeddings.weight, sentence
            )  # (batch, attributes, hidden)
        if known_words is not None:
            sentence = sentence + known_words[..., None] * self.known_embedding
        if self.query_projection is not None:
            sentence = sentence + self.query_projection(query_states)
        hidden_states, attentions, cross_attentions = self.decoder(
            sentence, image_tokens, output_attentions
        )
        return hidden_states, masked_words, attentions, cross_attentions


class LabelCoupling(nn.Module):
    """
    What known words tell of the others beyond the image: each adds its surprise, its label minus
    the query network's probability, to the others' logits by a weight a pair.
    """

    def __init__(self, num_attributes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_attributes, num_attributes))  # known, other

    def forward(
        self, query_logits: torch.Tensor, known_labels: torch.Tensor | None
    ) -> torch.Tensor:
        if known_labels is None:
            # So that the weights have a gradient in every step, as data parallelism expects.
            return torch.zeros_like(query_logits) @ self.weight
        surprise = known_labels.to(query_logits.dtype) - query_logits.sigmoid()
        return surprise.masked_fill(known_labels < 0, 0.0) @ self.weight


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
    # From `**kwargs` transformers' Trainer would conclude that the loss is divided by the number of
    # items that it hands over, and not divide by the steps of gradient accumulation itself.
    accepts_loss_kwargs = False

    def save_pretrained(self, save_directory, **kwargs):
        """Saves weights, config and the code that loads them, reachable by every Auto class."""
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
        if isinstance(module, GroupWiseLinear):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, ImageConditionedMaskedLanguageModel):
            init.zeros_(module.known_embedding)
        elif isinstance(module, LabelCoupling):
            init.zeros_(module.weight)


class Label2LabelModel(Label2LabelPreTrainedModel):
    """Backbone, query network and masked language model, without the last classifier."""

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
            self.query_network = AttributeQueryNetwork(config)
        if config.head_type == "label2label":
            self.masked_language_model = ImageConditionedMaskedLanguageModel(config)
        self.post_init()

    def encode_image(self, feature_map: torch.Tensor) -> torch.Tensor:
        """
        Turns features into the tokens that both networks attend to (step 1).

        Args:
            feature_map (`torch.FloatTensor` of shape `(batch, channels, height, width)`): As
                `join_feature_maps` returns it.

        Returns:
            `torch.FloatTensor` of shape `(batch, height * width, hidden_size)`.
        """
        height, width = feature_map.shape[-2:]
        tokens = self.input_projection(feature_map.flatten(2).transpose(1, 2))
        positions = sine_position_embedding(height, width, self.config.hidden_size)
        return tokens + positions.to(tokens)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        known_labels: torch.Tensor | None = None,
        mixup: tuple[torch.Tensor, torch.Tensor, float | torch.Tensor] | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> Label2LabelModelOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                Normalised faces.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                Words given by the caller, 1 or 0, or -100 where unknown; they replace the
                pseudo-labels. Only the `"label2label"` head reads them.
            mixup (`tuple`, *optional*):
                In training: labels of the two images of each mixup, both of shape `(batch,
                attributes)`, and the first one's weight in 0..1. The words are then mixed too.
            output_attentions (`bool`, *optional*):
                Whether to return attentions.

        Returns:
            [`Label2LabelModelOutput`]
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        feature_map = join_feature_maps(self.backbone(pixel_values, return_dict=True).feature_maps)
        if self.config.head_type == "fc":
            return Label2LabelModelOutput(last_hidden_state=feature_map.mean(dim=(2, 3)))

        image_tokens = self.encode_image(feature_map)
        query_logits, hidden_states, attentions, cross_attentions = self.query_network(
            image_tokens, output_attentions
        )
        masked_words = None
        if self.config.head_type == "label2label":
            words = query_logits > 0  # pseudo-labels (step 3)
            if mixup is not None:
                words = mix_words(words, *mixup)
            known_words = None
            if known_labels is not None:
                known_words = known_labels >= 0
                words = (known_labels > 0) | (words & ~known_words)
            hidden_states, masked_words, mlm_attentions, mlm_cross_attentions = (
                self.masked_language_model(
                    words, known_words, hidden_states, image_tokens, output_attentions
                )
            )
            attentions = attentions + mlm_attentions
            cross_attentions = cross_attentions + mlm_cross_attentions
        return Label2LabelModelOutput(
            last_hidden_state=hidden_states,
            query_logits=query_logits,
            masked_words=masked_words,
            attentions=tuple(attentions) if output_attentions else None,
            cross_attentions=tuple(cross_attentions) if output_attentions else None,
        )


def join_feature_maps(feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """
    One feature map of a backbone's several: the last one's channels and then the others', each
    averaged to the last one's height and width.

    Args:
        feature_maps (`tuple[torch.FloatTensor]`): Each of shape `(batch, channels, height, width)`,
            of sizes of their own.

    Returns:
        `torch.FloatTensor` of shape `(batch, channels, height, width)`, of the last one's size and
        all their channels.
    """
    *earlier, last = feature_maps
    if not earlier:
        return last
    height, width = last.shape[-2:]
    averaged = [nn.functional.adaptive_avg_pool2d(maps, (height, width)) for maps in earlier]
    return torch.cat([last, *averaged], dim=1)


def mix_words(
    words: torch.Tensor,
    labels: torch.Tensor,
    mixup_labels: torch.Tensor,
    mixup_weight: float | torch.Tensor,
) -> torch.Tensor:
    """
    Words of a mixed-up image, as the original code has them: the label of the image that weighs
    more where the prediction agrees with it, else the other image's; the prediction itself where
    that label is not known.

    Args:
        words (`torch.BoolTensor` of shape `(batch, attributes)`): Pseudo-labels.
        labels, mixup_labels (`torch.Tensor` of shape `(batch, attributes)`): 1, 0, soft, or -100.
        mixup_weight (`float`): The first image's weight, in 0..1.

    Returns:
        `torch.BoolTensor` of shape `(batch, attributes)`.
    """
    swap = torch.as_tensor(mixup_weight, device=words.device) < 0.5
    larger = torch.where(swap, mixup_labels, labels)
    smaller = torch.where(swap, labels, mixup_labels)
    agrees = (larger >= 0) & ((larger > 0.5) == words)
    return torch.where(agrees | (smaller < 0), words, smaller > 0.5)


class Label2LabelForImageClassification(Label2LabelPreTrainedModel):
    """Label2label for multi-label classification of facial attributes."""

    def __init__(self, config: Label2LabelConfig):
        super().__init__(config)
        self.label2label = Label2LabelModel(config)
        self.classifier: nn.Linear | GroupWiseLinear
        if config.head_type == "fc":
            channels = sum(self.label2label.backbone.channels)
            self.classifier = nn.Linear(channels, config.num_labels)
        elif config.head_type == "label2label":
            self.classifier = GroupWiseLinear(config.num_labels, config.hidden_size)
            self.normalization = LogitBatchNorm(config.num_labels)
            self.coupling = LabelCoupling(config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.Tensor | None = None,
        known_labels: torch.Tensor | None = None,
        mixup_labels: torch.Tensor | None = None,
        mixup_weight: float | torch.Tensor | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> Label2LabelImageClassifierOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                Normalised faces.
            labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                1, 0, soft in between, or -100 to ignore. With them a loss is returned.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                Words given by the caller, 1 or 0, or -100 where unknown. They condition the other
                attributes with the `"label2label"` head; the other heads ignore them.
            mixup_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*):
                In training, labels of the images that `pixel_values` were mixed up with.
            mixup_weight (`float`, *optional*):
                Weight of the first image, in 0..1; needed with `mixup_labels`.
            output_attentions (`bool`, *optional*):
                Whether to return attentions.

        Returns:
            [`Label2LabelImageClassifierOutput`]

        Raises:
            ValueError: If only one of `mixup_labels` and `mixup_weight` is given, or they come
                without `labels`, or labels are not of shape `(batch, attributes)`.
        """
        expected = (pixel_values.shape[0], self.config.num_labels)
        for value in (labels, known_labels, mixup_labels):
            if value is not None and tuple(value.shape) != expected:
                raise ValueError(f"labels must be of shape {expected}, got {tuple(value.shape)}")
        mixup = None
        if mixup_labels is not None or mixup_weight is not None:
            if labels is None or mixup_labels is None or mixup_weight is None:
                raise ValueError("mixup needs labels, mixup_labels and mixup_weight together")
            mixup = (labels, mixup_labels, mixup_weight)

        outputs = self.label2label(
            pixel_values,
            known_labels=known_labels,
            mixup=mixup,
            output_attentions=output_attentions,
            return_dict=True,
        )
        if self.config.head_type == "query2label":
            logits = outputs.query_logits
        else:
            logits = self.classifier(outputs.last_hidden_state)
        if self.config.head_type == "label2label":
            given = (known_labels >= 0,) if self.training and known_labels is not None else ()
            logits = self.normalization(logits, *given)
            if known_labels is not None or self.training:
                logits = logits + self.coupling(outputs.query_logits, known_labels)
        logits = logits / self.config.temperature

        loss = None
        if labels is not None:
            loss = self.compute_loss(logits, labels, outputs, known_labels)
            if mixup is not None:
                _, other_labels, weight = mixup
                other_loss = self.compute_loss(logits, other_labels, outputs, known_labels)
                loss = weight * loss + (1 - weight) * other_loss
        return Label2LabelImageClassifierOutput(
            loss=loss,
            logits=logits,
            query_logits=outputs.query_logits,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            masked_words=outputs.masked_words,
        )

    @torch.no_grad()
    def set_prior(self, frequencies: torch.Tensor) -> None:
        """
        Starts every attribute's logits at its log-odds, so that training need not first learn which
        attributes are rare (arXiv:1708.02002, section 4.1).

        Args:
            frequencies (`torch.FloatTensor` of shape `(attributes,)`): Share of images that have
                it, 0..1.
        """
        log_odds = torch.logit(frequencies, eps=0.01)
        if self.config.head_type == "fc":
            self.classifier.bias.copy_(log_odds)
        else:
            self.label2label.query_network.classifier.bias.copy_(log_odds)
        if self.config.head_type == "label2label":
            self.normalization.bias.copy_(log_odds)

    def compute_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        outputs: Label2LabelModelOutput,
        known_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Query loss plus `mlm_loss_weight` times the language model's (step 6), in float32.

        Args:
            logits (`torch.FloatTensor` of shape `(batch, attributes)`): The final ones.
            labels (`torch.Tensor` of shape `(batch, attributes)`): 1, 0, soft in between, or -100
                to ignore.
            outputs ([`Label2LabelModelOutput`]): Query logits and masked words.
            known_labels (`torch.Tensor` of shape `(batch, attributes)`, *optional*): Words that
                were given; the language model, which reads them, is not asked for them.

        Returns:
            `torch.FloatTensor`: a scalar.
        """
        limit = self.config.logit_clamp
        logits = logits.float().clamp(-limit, limit)
        if self.config.head_type != "label2label" or outputs.query_logits is None:
            return masked_binary_cross_entropy(logits, labels)
        query_logits = outputs.query_logits.float().clamp(-limit, limit)
        weights = torch.ones_like(logits)
        if outputs.masked_words is not None:
            weights = weights.masked_fill(
                ~outputs.masked_words, float(self.config.unmasked_loss_weight)
            )
        if known_labels is not None:
            weights = weights.masked_fill(known_labels >= 0, 0.0)
        query_loss = masked_binary_cross_entropy(query_logits, labels)
        mlm_loss = masked_binary_cross_entropy(logits, labels, weights)
        return query_loss + self.config.mlm_loss_weight * mlm_loss


__all__ = [
    "Label2LabelForImageClassification",
    "Label2LabelModel",
    "Label2LabelPreTrainedModel",
]
