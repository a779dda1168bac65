"""Label2label's heads, words, losses, and everything that a transformers model must stand."""

import numpy as np
import pytest
import torch
from label2label.models.modeling_label2label import (
    Label2LabelBatchNorm,
    Label2LabelMaskedLanguageModel,
    join_feature_maps,
    mix_words,
    sine_position_embedding,
    weighted_binary_cross_entropy,
)
from torch import nn
from transformers import ConvNextConfig, Dinov2Config, ResNetConfig, Trainer, TrainingArguments

HEADS = ["fc", "query2label", "label2label"]


@pytest.mark.parametrize("head_type", HEADS)
def test_each_head_returns_logits_and_a_loss(make_model, images, labels, head_type):
    output = make_model(head_type=head_type)(images, labels=labels)
    assert output.logits.shape == labels.shape
    assert output.loss.ndim == 0
    assert torch.isfinite(output.loss)
    if head_type == "fc":
        assert output.query_logits is None
    elif head_type == "query2label":
        assert torch.equal(output.query_logits, output.logits)
    else:
        assert not torch.equal(output.query_logits, output.logits)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head_type", HEADS)
def test_batch_of_one_keeps_its_batch_axis(make_model, images, labels, head_type, training):
    model = make_model(head_type=head_type).train(training)
    output = model(images[:1], labels=labels[:1])
    assert output.logits.shape == (1, labels.shape[1])
    output.loss.backward()


def test_batch_of_one_predicts_what_a_larger_batch_does(make_model, images):
    model = make_model()
    assert torch.allclose(model(images[:1]).logits[0], model(images).logits[0], atol=1e-5)


def test_resnet_of_transformers_is_a_backbone(make_model, images):
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    model = make_model(backbone_config=backbone)
    assert model(images).logits.shape == (4, 5)
    again = type(model.config).from_dict(model.config.to_dict())
    assert again.backbone_config.hidden_sizes == [8, 16]


def test_earlier_feature_maps_are_averaged_to_the_last_ones_size():
    early = torch.arange(24.0).reshape(1, 1, 4, 6)
    last = torch.ones(1, 2, 2, 3)
    joined = join_feature_maps((early, last))
    assert torch.equal(joined[:, :2], last)
    assert torch.equal(joined[0, 2], torch.tensor([[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]))
    assert join_feature_maps((last,)) is last


@pytest.mark.parametrize("head_type", HEADS)
def test_the_head_attends_to_all_feature_maps_of_the_backbone(
    tiny_backbone_config, make_model, images, head_type
):
    tiny_backbone_config.out_features = ["stage1", "features"]
    model = make_model(head_type=head_type, initializer_range=1.0)
    expected = model(images).logits
    assert model.label2label.backbone.channels == [8, 24]
    reads_features = model.classifier if head_type == "fc" else model.label2label.input_projection
    reads_features.weight.data[:, 24:] = 0.0  # what it reads of stage1
    assert (model(images).logits - expected).abs().max() > 1e-4
    tiny_backbone_config.out_features = []
    with pytest.raises(Exception, match="out_features are empty"):
        make_model(head_type=head_type)


def test_ignored_labels_do_not_count(make_model, images, labels):
    model = make_model()
    labels[:, 2] = -100  # a column that nothing is known of
    labels[1] = -100  # an image that nothing is known of
    expected = model(images, labels=labels).loss
    logits, query_logits = model(images).logits, model(images).query_logits
    known = labels >= 0
    by_hand = sum(
        nn.functional.binary_cross_entropy_with_logits(scores[known], labels[known].float())
        for scores in (query_logits, logits)
    )
    assert expected.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_all_labels_ignored_gives_a_loss_of_zero_with_a_gradient(make_model, images, labels):
    model = make_model().train()
    loss = model(images, labels=torch.full_like(labels, -100)).loss
    loss.backward()
    assert loss.item() == 0
    assert model.classifier.weight.grad.abs().sum() == 0


def test_loss_weights_masked_and_unmasked_words():
    logits, labels = torch.tensor([[0.0, 2.0]]), torch.tensor([[1, 1]])
    losses = nn.functional.softplus(-logits)[0]
    weighted = weighted_binary_cross_entropy(logits, labels, torch.tensor([[1.0, 0.25]]))
    assert weighted.item() == pytest.approx(((losses[0] + 0.25 * losses[1]) / 1.25).item())


@pytest.mark.parametrize(
    ("head_type", "training", "tells"),
    [("label2label", True, True), ("label2label", False, False), ("query2label", True, False)],
)
def test_the_output_tells_the_masked_words_where_there_are_any(
    make_model, images, head_type, training, tells
):
    model = make_model(head_type=head_type, mask_probability=1.0).train(training)
    outputs = model(images)
    assert (outputs.masked_words is not None) == tells
    if tells:
        assert outputs.masked_words.shape == outputs.logits.shape
        assert outputs.masked_words.all()


def test_soft_labels_are_targets_as_they_are():
    loss = weighted_binary_cross_entropy(torch.zeros(1, 1), torch.tensor([[0.3]]))
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


def test_logits_are_clamped_in_the_loss_only(make_model, images, labels):
    model = make_model(head_type="fc")
    with torch.no_grad():
        model.classifier.bias.fill_(1000.0)
    output = model(images, labels=torch.zeros_like(labels))
    assert output.logits.min() > 900
    assert output.loss.item() == pytest.approx(10.0, abs=1e-3)


def test_known_labels_replace_the_pseudo_labels(make_model, images):
    model = make_model()
    pseudo = (model(images).query_logits > 0).long()
    assert torch.equal(model(images, known_labels=pseudo).logits, model(images).logits)
    unknown = torch.full_like(pseudo, -100)
    assert torch.equal(model(images, known_labels=unknown).logits, model(images).logits)
    flipped = unknown.clone()
    flipped[:, 0] = 1 - pseudo[:, 0]
    others = model(images, known_labels=flipped).logits[:, 1:]
    assert not torch.allclose(others, model(images).logits[:, 1:])


@pytest.mark.parametrize("head_type", HEADS)
def test_an_empty_batch_gives_empty_logits(make_model, images, labels, head_type):
    output = make_model(head_type=head_type)(images[:0], labels=labels[:0])
    assert output.logits.shape == (0, 5)
    assert output.loss.item() == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", -1, "got -1.0; convert labels -1 and 1 to 0 and 1"),
        ("labels", 2, "labels must be 1, 0, soft in between, or -100 if unknown, got 2.0"),
        ("labels", 255, "got 255"),
        ("labels", float("nan"), "got nan"),
        ("known_labels", 7, "known_labels must be 1, 0 or -100 if unknown, got 7.0"),
        ("known_labels", 0.5, "got 0.5"),
    ],
)
def test_labels_of_other_values_are_refused(make_model, images, labels, name, value, message):
    wrong = labels.float()
    wrong[2, 3] = value
    with pytest.raises(ValueError, match=message):
        make_model()(images, **{name: wrong})


@pytest.mark.parametrize("name", ["labels", "known_labels"])
def test_labels_of_any_type_are_taken(make_model, images, labels, name):
    labels[0] = 1
    model = make_model()
    expected = model(images, **{name: labels}).logits
    for dtype in (torch.bool, torch.uint8, torch.int32, torch.float32, torch.bfloat16):
        assert torch.equal(model(images, **{name: labels.to(dtype)}).logits, expected)
    labels[:, 1] = -100
    model(images, **{name: labels})


@pytest.mark.parametrize("name", ["labels", "known_labels"])
def test_labels_of_another_shape_are_refused(make_model, images, name):
    with pytest.raises(ValueError, match=r"\(4, 5\), got \(4, 3\)"):
        make_model()(images, **{name: torch.zeros(4, 3)})


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.3])
def test_words_are_masked_in_training_only(make_model, probability):
    config = make_model(mask_probability=probability).config
    network = Label2LabelMaskedLanguageModel(config)
    words = torch.zeros(400, config.num_labels, dtype=torch.bool)
    tokens = torch.zeros(400, 4, config.hidden_size)
    states = torch.zeros(400, config.num_labels, config.hidden_size)
    torch.manual_seed(0)
    _, masked = network.train()(words, None, states, tokens)
    assert masked.float().mean().item() == pytest.approx(probability, abs=0.05)
    assert network.eval()(words, None, states, tokens)[1] is None


def test_a_fully_masked_sentence_says_nothing_about_its_words(make_model):
    config = make_model(mask_probability=1.0, dropout=0.0).config
    network = Label2LabelMaskedLanguageModel(config).train()
    words = torch.ones(4, config.num_labels, dtype=torch.bool)
    tokens = torch.randn(4, 4, config.hidden_size)
    states = torch.zeros(4, config.num_labels, config.hidden_size)
    masked = network(words, None, states, tokens)[0]
    assert torch.equal(masked, network(~words, None, states, tokens)[0])


def test_words_may_see_what_their_queries_saw(make_model, images):
    plain, seeing = make_model(), make_model(words_see_queries=True)
    network = seeing.label2label.masked_language_model
    missing, unexpected = seeing.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["label2label.masked_language_model.query_projection.weight"]
    assert not unexpected
    assert not torch.equal(seeing(images).logits, plain(images).logits)
    torch.nn.init.zeros_(network.query_projection.weight)
    torch.testing.assert_close(seeing(images).logits, plain(images).logits)


def test_coupling_adds_the_residual_of_known_words_to_the_others(make_model, images):
    model = make_model()
    known = torch.full((4, 5), -100)
    known[:, 1] = torch.tensor([1, 0, 1, 0])
    before = model(images, known_labels=known)
    with torch.no_grad():
        model.coupling.weight[1, 3] = 2.0
    after = model(images, known_labels=known)
    residual = known[:, 1] - before.query_logits[:, 1].sigmoid()
    torch.testing.assert_close(after.logits[:, 3], before.logits[:, 3] + 2 * residual)
    others = [0, 1, 2, 4]
    assert torch.equal(after.logits[:, others], before.logits[:, others])
    assert torch.equal(model(images).logits, make_model()(images).logits)


def test_given_words_have_no_part_in_the_last_batch_norm(make_model):
    given = torch.tensor([[True, False], [False, False], [False, True], [False, False]])
    logits = torch.randn(4, 2)
    spoilt = logits.masked_fill(given, 1e3)
    guesses = [logits[~given[:, i], i] for i in range(2)]
    normalization = Label2LabelBatchNorm(2).train()
    normalized = normalization(spoilt, given)
    for i, values in enumerate(guesses):
        expected = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(normalized[~given[:, i], i], expected)
        assert normalization.running_mean[i].item() == pytest.approx(0.1 * values.mean().item())
        variance = 0.9 + 0.1 * values.var().item()
        assert normalization.running_var[i].item() == pytest.approx(variance)
    # Without given words it is the plain one; where all are given, it remembers nothing.
    plain = torch.nn.BatchNorm1d(2).train()
    normalization = Label2LabelBatchNorm(2).train()
    nothing_given = torch.zeros_like(given)
    torch.testing.assert_close(normalization(logits, nothing_given), plain(logits))
    torch.testing.assert_close(normalization.running_var, plain.running_var)
    assert torch.isfinite(normalization(logits, ~nothing_given)).all()
    torch.testing.assert_close(normalization.running_var, plain.running_var)


def test_known_words_are_never_masked_nor_asked_for(make_model, images, labels):
    model = make_model(mask_probability=1.0, dropout=0.0).train()
    known = torch.full((4, 5), -100)
    known[:, 2] = 1
    outputs = model.label2label(images, known_labels=known)
    assert outputs.masked_words.tolist() == [[True, True, False, True, True]] * 4
    logits = torch.zeros(4, 5, requires_grad=True)
    model.compute_loss(
        logits, labels.zero_(), outputs.query_logits, outputs.masked_words, known
    ).backward()
    assert (logits.grad[:, 2] == 0).all()
    assert (logits.grad[:, [0, 1, 3, 4]] > 0).all()


def test_the_temperature_divides_the_logits(make_model, images):
    model = make_model()
    logits = model(images).logits
    model.config.temperature = 2.0
    assert torch.allclose(model(images).logits, logits / 2)


def test_mixed_words_follow_the_larger_image_where_the_prediction_agrees():
    words = torch.tensor([[True, True, False, True, True]])
    labels = torch.tensor([[1, 0, 0, -100, 0]])
    other = torch.tensor([[0, 1, 1, 0, -100]])
    # larger agrees; disagrees: other; agrees; larger unknown: other; other unknown: prediction
    expected = torch.tensor([[True, True, False, False, True]])
    assert torch.equal(mix_words(words, labels, other, 0.7), expected)
    assert torch.equal(mix_words(words, other, labels, 0.3), expected)


def test_mixup_loss_is_the_mix_of_both_losses(make_model, images, labels):
    model = make_model(head_type="query2label")
    first = model(images, labels=labels).loss
    second = model(images, labels=1 - labels).loss
    mixed = model(images, labels=labels, mixup=(1 - labels, 0.25)).loss
    assert mixed.item() == pytest.approx((0.25 * first + 0.75 * second).item(), rel=1e-5)


def test_mixup_needs_the_first_images_labels(make_model, images, labels):
    with pytest.raises(ValueError, match="mixup needs"):
        make_model()(images, mixup=(labels, 0.5))


@pytest.mark.parametrize("head_type", HEADS)
@pytest.mark.parametrize("mixed", [False, True])
def test_an_images_loss_is_that_of_it_alone(make_model, images, labels, head_type, mixed):
    settings = {"mask_probability": 0.5, "unmasked_loss_weight": 0.25}
    model = make_model(head_type=head_type, **settings).train()
    labels[:, 2] = -100
    labels[3] = -100  # an image that nothing is known of
    known = torch.where(torch.arange(5) < 2, labels, -100)
    options = {"known_labels": known, "mixup": (labels.flip(0), 0.25) if mixed else None}
    out = model(images, labels=labels, **options)

    def loss(rows, **kwargs):
        parts = (out.logits, labels, out.query_logits, out.masked_words, known)
        mixup = (labels.flip(0)[rows], 0.25) if mixed else None
        cut = (None if part is None else part[rows] for part in parts)
        return model.compute_loss(*cut, mixup=mixup, **kwargs)

    torch.testing.assert_close(loss(slice(None)), out.loss)
    losses = loss(slice(None), reduction="image")
    torch.testing.assert_close(losses, torch.stack([loss([i]) for i in range(4)]))
    if not mixed:
        assert losses[3] == 0  # no known label


def test_attentions_on_request(make_model, images):
    model = make_model(num_query_layers=1, num_mlm_layers=2)
    output = model(images, output_attentions=True)
    assert [tuple(a.shape) for a in output.cross_attentions] == [(4, 2, 5, 9)] * 3
    assert [tuple(a.shape) for a in output.attentions] == [(4, 2, 5, 5)] * 3
    assert torch.allclose(output.cross_attentions[0].sum(-1), torch.ones(4, 2, 5), atol=1e-5)
    assert model(images).cross_attentions is None


@pytest.mark.parametrize(
    "backbone_config",
    [
        ConvNextConfig(hidden_sizes=[8, 8, 8], depths=[1, 1, 1], num_stages=3),
        Dinov2Config(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=48, patch_size=16
        ),
    ],
)
def test_asking_for_attentions_changes_no_answer_of_any_backbone(
    make_model, images, backbone_config
):
    model = make_model(backbone_config=backbone_config)
    torch.nn.init.normal_(model.classifier.weight)
    with torch.no_grad():
        before = model(images).logits
        outputs = model(images, output_attentions=True, output_hidden_states=True)
        after = model(images).logits
    assert (len(outputs.cross_attentions), len(outputs.hidden_states)) == (2, 3)
    assert torch.allclose(outputs.logits, before, atol=1e-5)
    assert torch.equal(after, before)


def test_hidden_states_on_request(make_model, images):
    model = make_model(num_query_layers=1, num_mlm_layers=2)
    output = model(images, output_hidden_states=True)
    assert output.attentions is None
    queries, first, *_, last = output.hidden_states
    assert torch.equal(queries[2], model.label2label.query_network.query_embeddings.weight)
    network = model.label2label.query_network
    assert torch.equal(network.classifier(network.decoder.norm(first)), output.query_logits)
    normed = model.label2label.masked_language_model.decoder.norm(last)
    assert torch.equal(normed, model.label2label(images).last_hidden_state)
    model.config.output_hidden_states = True
    assert len(model(images).hidden_states) == 4


def test_sdpa_and_eager_attention_agree(make_model, images):
    logits = []
    for implementation in ("sdpa", "eager"):
        model = make_model()
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        logits.append(model(images).logits)
    assert torch.allclose(*logits, atol=1e-5)


def test_position_embedding_tells_every_position_apart():
    embedding = sine_position_embedding(7, 5, 16)
    assert embedding.shape == (35, 16)
    distances = torch.cdist(embedding, embedding) + torch.eye(35)
    assert distances.min() > 0.05


def test_weights_are_initialised_as_the_config_says(make_model):
    model = make_model(initializer_range=0.05, hidden_size=128, num_labels=40)
    head = model.label2label
    for weight in (
        model.classifier.weight,
        head.query_network.query_embeddings.weight,
        head.masked_language_model.word_embeddings.weight,
        head.input_projection.weight,
    ):
        assert weight.std().item() == pytest.approx(0.05, rel=0.1)
    assert model.classifier.bias.abs().sum() == 0


def test_gradient_checkpointing_changes_no_gradient(make_model, images, labels):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(dropout=0.0, mask_probability=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(images, labels=labels).loss.backward()
        gradients.append(model.label2label.query_network.query_embeddings.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_and_stays_close(make_model, images, labels, dtype):
    model = make_model()
    expected = model(images, labels=labels)
    with torch.autocast("cpu", dtype):
        output = model(images, labels=labels)
    assert output.loss.dtype == torch.float32
    assert torch.allclose(output.logits.float(), expected.logits, atol=0.1)
    output.loss.backward()
    assert torch.isfinite(model.label2label.input_projection.weight.grad).all()


@pytest.mark.slow
def test_torch_compile_computes_the_same(make_model, images):
    model = make_model()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(images).logits, model(images).logits, atol=1e-4)


def test_torch_export_computes_the_same_for_any_batch(make_model, images):
    model = make_model()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model, (), {"pixel_values": images}, dynamic_shapes={"pixel_values": {0: batch}}
    )
    for inputs in (images, images[:3]):
        exported = program.module()(pixel_values=inputs).logits
        assert torch.allclose(exported, model(inputs).logits, atol=1e-5)


def test_accumulated_gradients_under_transformers_trainer_are_those_of_the_whole_batch(
    make_model, images, labels, tmp_path
):
    moved = []
    for steps in (1, 4):
        model = make_model(head_type="query2label", dropout=0.0)
        model.train = lambda mode=True, model=model: model  # batch norm by running statistics
        before = model.state_dict()["label2label.query_network.classifier.weight"].clone()
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4 // steps,
            gradient_accumulation_steps=steps,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
        )
        faces = [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]
        Trainer(model, arguments, train_dataset=faces).train()
        moved.append(model.label2label.query_network.classifier.weight - before)
    assert moved[0].abs().max() > 1e-3
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("head_type", HEADS)
def test_the_trainer_hands_logits_and_labels_to_compute_metrics(
    make_model, images, labels, tmp_path, head_type
):
    def compute_metrics(prediction):
        logits, references = prediction
        return {"accuracy": ((1 / (1 + np.exp(-logits)) > 0.5) == references).mean()}

    faces = [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True)
    model = make_model(head_type=head_type)
    trainer = Trainer(model, arguments, eval_dataset=faces, compute_metrics=compute_metrics)
    expected = model(images, labels=labels)
    scores = trainer.evaluate()
    assert scores["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    hits = ((expected.logits > 0) == (labels > 0)).float().mean().item()
    assert scores["eval_accuracy"] == pytest.approx(hits)


@pytest.mark.parametrize("head_type", HEADS)
def test_a_tuple_is_returned_where_the_config_asks_for_one(make_model, images, labels, head_type):
    model = make_model(head_type=head_type)
    expected = model(images, labels=labels).to_tuple()
    model.config.return_dict = model.config.backbone_config.return_dict = False
    outputs = model(images, labels=labels)
    assert isinstance(outputs, tuple)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_with_known_words(make_model, images, labels, dtype):
    model = make_model().to(dtype).train()
    known = torch.full_like(labels, -100)
    known[:, 2] = labels[:, 2]
    model(images.to(dtype), labels=labels, known_labels=known).loss.backward()
    assert model.normalization.running_mean.dtype == dtype
    assert model.normalization.running_mean[[0, 1, 3, 4]].abs().min() > 0


@pytest.mark.parametrize("head_type", ["fc", "query2label"])
def test_heads_without_words_ignore_known_labels(make_model, images, labels, head_type):
    model = make_model(head_type=head_type)
    assert torch.equal(model(images, known_labels=labels).logits, model(images).logits)
