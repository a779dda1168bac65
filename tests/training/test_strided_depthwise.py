"""Strided depthwise convolutions: the same results and gradients by another way."""

import copy

import pytest
import torch
from label2label.training.strided_depthwise import (
    StridedDepthwiseConv2d,
    speed_up_strided_depthwise,
)
from torch import nn


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(12, 12), (13, 12), (7, 6)])
@pytest.mark.parametrize(("kernel", "padding", "stride"), [(3, 1, 2), (5, 2, 2), (3, 0, (2, 1))])
def test_results_and_gradients_are_those_of_the_plain_convolution(
    kernel, padding, stride, size, layout
):
    plain = nn.Sequential(
        nn.Conv2d(6, 6, kernel, stride=stride, padding=padding, groups=6, bias=False)
    )
    fast = copy.deepcopy(plain)
    speed_up_strided_depthwise(fast)
    assert isinstance(fast[0], StridedDepthwiseConv2d)
    pixels = torch.randn(2, 6, *size).contiguous(memory_format=layout)
    found = []
    for model in (plain, fast):
        images = pixels.clone(memory_format=torch.preserve_format).requires_grad_()
        output = model(images)
        torch.manual_seed(0)
        output.backward(torch.randn(output.shape))
        found.append((output, images.grad, model[0].weight.grad))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_only_strided_depthwise_convolutions_are_replaced():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, stride=2, bias=False),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
    ).eval()
    names = list(model.state_dict())
    speed_up_strided_depthwise(model)
    assert [type(layer) for layer in model] == [StridedDepthwiseConv2d] + 3 * [nn.Conv2d]
    assert list(model.state_dict()) == names
    assert not model[0].training


def test_mixed_precision_computes_in_the_lower_one():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, groups=4, bias=False))
    speed_up_strided_depthwise(model)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(1, 4, 9, 9))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert model[0].weight.grad.dtype == torch.float32
