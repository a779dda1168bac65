"""Depthwise convolutions of stride 2 whose gradients are as fast as those of stride 1 on a CPU."""

from typing import Any

import torch
from torch import nn


class _StridedDepthwise(torch.autograd.Function):
    """Forward as it is; backward as that of stride 1, to a gradient with zeros in between.

    PyTorch's gradients of depthwise convolutions on a CPU are fast for stride 1 only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pixels: torch.Tensor,
        weight: torch.Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(pixels, weight)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(pixels, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        pixels, weight = ctx.saved_tensors
        spread = [
            side + 2 * padding - kernel + 1
            for side, padding, kernel in zip(
                pixels.shape[2:], ctx.padding, weight.shape[2:], strict=True
            )
        ]
        layout = (
            torch.channels_last
            if pixels.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        shape = (*gradient.shape[:2], *spread)
        dense = torch.empty(shape, dtype=gradient.dtype, memory_format=layout).zero_()
        dense[:, :, :: ctx.stride[0], :: ctx.stride[1]] = gradient
        of_pixels, of_weight, _ = torch.ops.aten.convolution_backward(
            dense,
            pixels,
            weight,
            None,
            (1, 1),
            ctx.padding,
            (1, 1),
            False,
            (0, 0),
            len(weight),
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )
        return of_pixels, of_weight, None, None


class StridedDepthwiseConv2d(nn.Conv2d):
    """A depthwise `Conv2d` without bias whose backward pass on a CPU is that of stride 1."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: (batch, channels, height, width).

        Returns:
            (batch, channels, height / stride, width / stride), as `Conv2d` has it.
        """
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)
        return _StridedDepthwise.apply(input, weight, self.stride, self.padding)


def speed_up_strided_depthwise(module: nn.Module) -> None:
    """
    Replaces every strided depthwise convolution inside a module; weights and names stay.

    Args:
        module: Changed in place, before it is given to an optimizer.
    """
    for name, child in module.named_children():
        if (
            isinstance(child, nn.Conv2d)
            and child.groups == child.in_channels == child.out_channels > 1
            and child.bias is None
            and max(child.stride) > 1
            and child.dilation == (1, 1)
            and child.padding_mode == "zeros"
            and not isinstance(child.padding, str)
        ):
            fast = StridedDepthwiseConv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,  # type: ignore[arg-type]
                child.stride,  # type: ignore[arg-type]
                child.padding,  # type: ignore[arg-type]
                groups=child.groups,
                bias=False,
            )
            fast.weight = child.weight
            setattr(module, name, fast.train(child.training))
        else:
            speed_up_strided_depthwise(child)
