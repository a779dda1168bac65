"""The head as a device runs it says what the model's own head says."""

import pytest
import torch
from label2label.export.folding import fold_batch_norms
from label2label.export.inference import InferenceHead
from label2label.models.modeling_label2label import join_feature_maps


@pytest.fixture(
    params=[(1, 1, False), (2, 2, False), (1, 1, True), (1, 2, True)],
    ids=["one layer each", "two layers each", "words see queries", "the first of two sees them"],
)
def model(request, make_backend):
    query_layers, mlm_layers, words_see_queries = request.param
    return make_backend(
        num_query_layers=query_layers,
        num_mlm_layers=mlm_layers,
        words_see_queries=words_see_queries,
    ).model


def heads(model, shape):
    """Logits of the model and of its inference head, by known labels, of random images."""
    folded = fold_batch_norms(model)
    pixels = torch.randn(3, 3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = join_feature_maps(folded.label2label.backbone(pixels).feature_maps)
        head = InferenceHead(folded, *features.shape[2:])
    return (
        lambda known=None: model(pixels, known_labels=known).logits,
        lambda known=None: head(features, known),
    )


def test_logits_are_the_models(model):
    expected, found = heads(model, (112, 112))
    with torch.no_grad():
        assert expected().std() > 0.1
        assert (found() - expected()).abs().max() < 1e-4


def test_features_need_not_be_square(model):
    expected, found = heads(model, (96, 64))
    with torch.no_grad():
        assert (found() - expected()).abs().max() < 1e-4


def test_known_words_condition_the_others_as_in_the_model(model):
    model.label2label.masked_language_model.known_embedding.data.normal_()
    expected, found = heads(model, (64, 64))
    known = torch.tensor([[1, 0, -100, -100, -100], [-100] * 5, [0, 0, 1, 1, -100]])
    with torch.no_grad():
        assert (found(known) - expected(known)).abs().max() < 1e-4
        assert (found(known) - found()).abs()[0].max() > 1e-3
        assert (found(known) - found())[1].abs().max() < 1e-5


def test_query_network_alone_has_its_own_head(make_backend):
    expected, found = heads(make_backend(head_type="query2label").model, (64, 64))
    with torch.no_grad():
        assert (found() - expected()).abs().max() < 1e-4


def test_the_model_is_left_as_it_was(make_backend):
    model = make_backend().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heads(model, (64, 64))
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
