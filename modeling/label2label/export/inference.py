"""Label2label's head as a device runs it: what no image changes is computed before, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from label2label.models import Label2LabelForImageClassification
from label2label.models.modeling_label2label import sine_position_embedding


class PooledHead(nn.Module):
    """The linear head on pooled features, as `InferenceHead` is called.

    Args:
        classifier: of the model.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, feature_map: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (batch, attributes) of features (batch, channels, height, width)."""
        return self.classifier(feature_map.mean(dim=(2, 3)))


class InferenceHead(nn.Module):
    """Query network and masked language model, of the same outputs and with less to do.

    * The queries that enter the first decoder layer are constants. So are its self-attention and
      the queries of its cross-attention, whose products with the keys are then linear in the image.
    * A word of the sentence is "absent" or "present": the first self-attention of the language
      model takes its queries, keys and values from two tables, unless words see their queries.
    * The layers' attention to the image begins with one 1x1 convolution for all of them, of which
      the positions' part is a constant.

    Args:
        model: folded (`fold_batch_norms`), of head `query2label` or `label2label`.
        height, width: of the feature map that the head attends to.
    """

    queries: torch.Tensor
    constant: torch.Tensor

    @torch.no_grad()
    def __init__(self, model: Label2LabelForImageClassification, height: int, width: int) -> None:
        super().__init__()
        base: Any = model.label2label
        self.num_heads: int = base.config.num_attention_heads
        network = base.query_network
        self.first_query_layer, *query_layers = network.decoder.layers
        self.query_layers = nn.ModuleList(query_layers)
        self.query_norm, self.query_classifier = network.decoder.norm, network.classifier
        self._fold_queries(network.query_embeddings.weight, self.first_query_layer)
        attending = [*query_layers]
        self.has_language_model = base.config.head_type == "label2label"
        if self.has_language_model:
            language_model = base.masked_language_model
            self.first_word_layer, *word_layers = language_model.decoder.layers
            self.word_layers = nn.ModuleList(word_layers)
            self.norm, self.classifier = language_model.decoder.norm, model.classifier
            self._tabulate_words(language_model, self.first_word_layer)
            self.query_projection = language_model.query_projection
            self.coupling = model.coupling
            attending += language_model.decoder.layers
        self._join_projections(base.input_projection, attending, height, width)

    def _fold_queries(self, embeddings: torch.Tensor, layer: Any) -> None:
        normed = layer.self_attention_norm(embeddings[None])
        output, _ = layer.self_attention(normed, normed)
        queries = embeddings[None] + output  # (1, attributes, hidden)
        attention = layer.cross_attention
        # The bias of the output projection joins what it is added to.
        self.register_buffer("queries", queries + attention.o_proj.bias)
        projected = self._split(attention.q_proj(layer.cross_attention_norm(queries)))[0]
        # A bias of the keys adds the same to a query's every score: softmax does not see it.
        keys = attention.k_proj.weight.unflatten(0, (self.num_heads, -1))  # (heads, dim, hidden)
        self.score_weights = (projected @ keys).flatten(0, 1)  # (heads * attributes, hidden)
        self.value_projection = attention.v_proj

    def _tabulate_words(self, model: Any, layer: Any) -> None:
        attention = layer.self_attention
        absent, present = model.word_embeddings.weight.unflatten(0, (2, -1))
        known = model.known_embedding
        # Absent, present, known to be absent, known to be present: (4, attributes, hidden).
        words = torch.stack([absent, present, absent + known, present + known])
        normed = layer.self_attention_norm(words)
        self.words = _rows(words)
        self.word_queries = _rows(self._split(attention.q_proj(normed)))
        self.word_keys = _rows(self._split(attention.k_proj(normed)).transpose(-2, -1))
        self.word_values = _rows(self._split(attention.v_proj(normed)))

    def _join_projections(
        self, input_projection: Any, layers: list[Any], height: int, width: int
    ) -> None:
        attentions = [layer.cross_attention for layer in layers]
        linears = [self.value_projection]
        linears += [linear for x in attentions for linear in (x.k_proj, x.v_proj)]
        weight = torch.cat([self.score_weights, *(linear.weight for linear in linears)])
        bias = torch.cat(
            [torch.zeros(len(self.score_weights)), *(linear.bias for linear in linears)]
        )
        self.sizes = [len(self.score_weights)] + [len(linear.weight) for linear in linears]
        positions = sine_position_embedding(height, width, weight.shape[1]).to(weight)
        constant = positions @ weight.T + bias  # (tokens, channels)
        self.register_buffer("constant", constant.T[None].contiguous())
        self.input_convolution = _as_convolution(input_projection.weight, input_projection.bias)
        self.joint_convolution = _as_convolution(weight)

    def _split(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, words, hidden) to (batch, heads, words, hidden / heads)."""
        return hidden_states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _feed_forward(self, layer: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + layer.feed_forward(layer.feed_forward_norm(hidden_states))

    def _attend_to_image(
        self, layer: Any, hidden_states: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.cross_attention
        queries = self._split(attention.q_proj(layer.cross_attention_norm(hidden_states)))
        scores = queries @ keys.unflatten(1, (self.num_heads, -1))
        hidden_states = hidden_states + attention.o_proj(self._attend(scores, values))
        return self._feed_forward(layer, hidden_states)

    def _attend(self, scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Scores (batch, heads, words, tokens), values (batch, hidden, tokens): (batch, words,
        hidden)."""
        values = values.unflatten(1, (self.num_heads, -1)).transpose(-2, -1)
        return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)

    def _attend_to_words(self, layer: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        attention, normed = layer.self_attention, layer.self_attention_norm(hidden_states)
        queries = self._split(attention.q_proj(normed))
        scores = queries @ self._split(attention.k_proj(normed)).transpose(-2, -1)
        values = self._split(attention.v_proj(normed))
        output = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        return hidden_states + attention.o_proj(output)

    def forward(
        self, feature_map: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of features.

        Args:
            feature_map: (batch, channels, height, width).
            known_labels: (batch, attributes) of 1, 0 or -100.

        Returns:
            (batch, attributes).
        """
        projected = self.joint_convolution(self.input_convolution(feature_map)).flatten(2)
        scores, values, *others = (projected + self.constant).split(self.sizes, dim=1)
        first = self.first_query_layer
        output = self._attend(scores.unflatten(1, (self.num_heads, -1)), values)
        output = nn.functional.linear(output, first.cross_attention.o_proj.weight)
        hidden_states = self._feed_forward(first, self.queries + output)
        for layer in self.query_layers:
            keys, values, *others = others
            hidden_states = self._attend_to_words(layer, hidden_states)
            hidden_states = self._attend_to_image(layer, hidden_states, keys, values)
        query_states = self.query_norm(hidden_states)
        query_logits = _classify(self.query_classifier, query_states)
        if not self.has_language_model:
            return query_logits
        keys, values, *others = others
        # As `> 0`, of which ncnn knows nothing; what lies between is below float32's noise.
        words = (query_logits * 1e30).clamp(0, 1)
        hidden_states = self._read_sentence(
            self.first_word_layer, words, known_labels, query_states
        )
        hidden_states = self._attend_to_image(self.first_word_layer, hidden_states, keys, values)
        for layer in self.word_layers:
            keys, values, *others = others
            hidden_states = self._attend_to_words(layer, hidden_states)
            hidden_states = self._attend_to_image(layer, hidden_states, keys, values)
        logits = _classify(self.classifier, self.norm(hidden_states))
        if known_labels is not None:
            logits = logits + self.coupling(query_logits, known_labels)
        return logits

    def _read_sentence(
        self,
        layer: Any,
        words: torch.Tensor,
        known_labels: torch.Tensor | None,
        query_states: torch.Tensor,
    ) -> torch.Tensor:
        known = None
        if known_labels is not None:
            known = (known_labels >= 0).to(words)
            words = words + known * ((known_labels > 0).to(words) - words)

        def look_up(table: Any, axes: Any) -> torch.Tensor:
            found = table[0] + words[axes] * table[1]
            if known is None:
                return found
            return found + known[axes] * (table[2] + words[axes] * table[3])

        sentence = look_up(self.words, (slice(None), slice(None), None))
        if self.query_projection is not None:
            return self._attend_to_words(layer, sentence + self.query_projection(query_states))
        by_row, by_column = (slice(None), None, slice(None), None), (slice(None), None, None)
        scores = look_up(self.word_queries, by_row) @ look_up(self.word_keys, by_column)
        output = scores.softmax(-1) @ look_up(self.word_values, by_row)
        output = output.transpose(1, 2).flatten(2)
        return sentence + layer.self_attention.o_proj(output)


def _rows(table: torch.Tensor) -> nn.ParameterList:
    """A table by word and by whether it is known, as what is added for either and for both.

    Each row is a tensor of its own, so that a file holds those that it reads.
    """
    absent, present, known_absent, known_present = table
    rows = [absent, present - absent, known_absent - absent]
    rows.append(known_present - known_absent - rows[1])
    return nn.ParameterList(nn.Parameter(row, requires_grad=False) for row in rows)


def _classify(classifier: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Logits (batch, attributes) of (batch, attributes, hidden), as the group-wise linear layer's.

    OpenVINO joins a bias to the sum before it, and is then wrong for more than one image
    (openvinotoolkit/openvino#23616, of which batches are left); not where an axis goes between.
    """
    products = hidden_states * classifier.weight
    return products.sum(dim=-1, keepdim=True).squeeze(-1) + classifier.bias


def _as_convolution(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Conv2d:
    """A linear layer (out, in) over the channels of a feature map."""
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    convolution.weight = nn.Parameter(weight[:, :, None, None])
    if bias is not None:
        convolution.bias = nn.Parameter(bias)
    return convolution.requires_grad_(False)
