"""BatchNorm over the images of all processes, so that a run does not depend on their number."""

import torch
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    """
    BatchNorm whose means and variances in training are those of the batches of all processes.

    Unlike `torch.nn.SyncBatchNorm` it runs on any device and backend; the parameters are the same.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass  # of any shape (batch, channels, ...)

    def forward(self, input: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input: (batch, channels, ...).
            given: (batch, channels, ...), true where a value has no part in the statistics.

        Returns:
            The same shape and dtype.
        """
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        values = input.float()
        counted = torch.ones_like(values) if given is None else (~given).float()
        sums = all_reduce(torch.cat([(values * counted).sum(axes), counted.sum(axes)]))
        mean, count = sums.chunk(2)
        count = count.detach().clamp(min=1)
        mean = mean / count
        centred = values - mean.view(shape)
        # Of the centred values: the difference of two large sums would lose digits.
        variance = all_reduce((centred.square() * counted).sum(axes)) / count
        unbiased = variance.detach() * count / (count - 1).clamp(min=1)
        for remembered, new in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
            if remembered is not None and self.momentum is not None:
                remembered.lerp_(new, self.momentum * (count > 1))
        normalized = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normalized * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronize_batch_norm(module: torch.nn.Module) -> None:
    """
    Replaces every BatchNorm inside a module; weights, statistics and names stay.

    Args:
        module: Changed in place, before it is given to an optimizer.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            synchronized = SynchronizedBatchNorm(
                child.num_features, eps=child.eps, momentum=child.momentum
            )
            synchronized.load_state_dict(child.state_dict())
            setattr(module, name, synchronized)
        else:
            synchronize_batch_norm(child)
