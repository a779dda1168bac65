"""The transformer decoder that both networks of Label2label's head are made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_label2label import Label2LabelConfig


def sine_position_embedding(
    height: int, width: int, hidden_size: int, temperature: float = 10000.0
) -> torch.Tensor:
    """
    Sine embedding of the positions of a feature map: half of the channels for the row, half for the
    column.

    Args:
        height, width (`int`): The feature map's size.
        hidden_size (`int`): Channels, a multiple of 4.
        temperature (`float`): Ratio of the longest to the shortest wavelength.

    Returns:
        `torch.FloatTensor` of shape `(height * width, hidden_size)`, positions normalised to 0..2
        pi.
    """
    frequencies = hidden_size // 4
    wavelengths = temperature ** (torch.arange(frequencies, dtype=torch.float32) / frequencies)
    embeddings = []
    for size in (height, width):
        positions = torch.arange(1, size + 1, dtype=torch.float32) / size * 2 * math.pi
        angles = positions[:, None] / wavelengths  # (size, frequencies)
        embeddings.append(torch.cat([angles.sin(), angles.cos()], dim=-1))
    rows = embeddings[0][:, None].expand(-1, width, -1)
    columns = embeddings[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention written out; returns the output and the attention weights."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
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
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_size, num_queries, hidden_size = hidden_states.shape
        query_shape = (batch_size, num_queries, -1, self.head_dim)
        key_shape = (batch_size, key_value_states.shape[1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(query_shape).transpose(1, 2)
        key = self.k_proj(key_value_states).view(key_shape).transpose(1, 2)
        value = self.v_proj(key_value_states).view(key_shape).transpose(1, 2)

        # Fused kernels return no weights, so a call that asks for them takes the eager path.
        attention: Callable = eager_attention_forward
        if not output_attentions:
            attention = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
        output, weights = attention(
            self,
            query,
            key,
            value,
            None,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        output = self.o_proj(output.reshape(batch_size, num_queries, hidden_size))
        return output, weights if output_attentions else None


class Label2LabelDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm decoder layer: self-attention, attention to the image tokens, feed-forward."""

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
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        normed = self.self_attention_norm(hidden_states)
        output, self_weights = self.self_attention(normed, normed, output_attentions)
        hidden_states = hidden_states + self.dropout(output)
        normed = self.cross_attention_norm(hidden_states)
        output, cross_weights = self.cross_attention(normed, image_tokens, output_attentions)
        hidden_states = hidden_states + self.dropout(output)
        output = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(output), self_weights, cross_weights


class Label2LabelDecoder(nn.Module):
    """A stack of decoder layers and a last layer norm."""

    def __init__(self, config: Label2LabelConfig, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Label2LabelDecoderLayer(config) for _ in range(num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, image_tokens: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        attentions, cross_attentions = [], []
        for layer in self.layers:
            hidden_states, self_weights, cross_weights = layer(
                hidden_states, image_tokens, output_attentions
            )
            attentions.append(self_weights)
            cross_attentions.append(cross_weights)
        return self.norm(hidden_states), attentions, cross_attentions


__all__ = ["Label2LabelDecoder", "Label2LabelDecoderLayer", "sine_position_embedding"]
