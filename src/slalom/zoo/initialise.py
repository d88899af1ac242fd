"""Random weights that are a function of the seed alone and keep activations of order one, however deep the network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_BIAS_RANGE = 0.05
_SHIFT_RANGE = 0.1
_MEAN_RANGE = 0.2
_SPREAD = 0.2


def initialise(module: nn.Module, seed: int, gains: Mapping[str, float] | None = None) -> None:
    """Fills every convolution, dense layer and batch norm of `module` in place from a generator seeded with `seed`.

    Weights are uniform around zero, and every filter sums to zero: what all images share (a ReLU's mean is positive)
    would otherwise grow with depth until the network gave every image the same answer. Their variance is that of He et
    al. 2015 (arXiv:1502.01852), corrected for the mean that the filters no longer see: a ReLU network keeps its scale.
    Batch norms get running means within 0.2 and variances within 0.8..1.2, not 0 and 1: folding them has an effect.
    `gains` multiplies the scale of the named batch norms: below one where a residual branch is about to be added, or
    where no ReLU stands between two linear layers and the scale would grow with depth.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _fill_linear(layer, generator)
            elif isinstance(layer, nn.BatchNorm2d):
                _fill_batch_norm(layer, (gains or {}).get(name, 1.0), generator)


def _fill_linear(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    fan_in = layer.weight[0].numel()
    # Uniform in -a..a has variance a^2 / 3. For z normal, relu(z) has mean square 1/2 and variance 1/2 - 1/(2 pi).
    reach = math.sqrt(3 / fan_in / (0.5 - 0.5 / math.pi))
    layer.weight.uniform_(-reach, reach, generator=generator)
    filters = layer.weight.flatten(1)
    filters -= filters.mean(dim=1, keepdim=True, dtype=torch.float64).float()  # float64: the same on every machine
    if layer.bias is not None:
        layer.bias.uniform_(-_BIAS_RANGE, _BIAS_RANGE, generator=generator)


def _fill_batch_norm(layer: nn.BatchNorm2d, gain: float, generator: torch.Generator) -> None:
    _around(layer.weight, gain, generator)
    layer.bias.uniform_(-_SHIFT_RANGE, _SHIFT_RANGE, generator=generator)
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean.uniform_(-_MEAN_RANGE, _MEAN_RANGE, generator=generator)
        _around(layer.running_var, 1.0, generator)


def _around(tensor: Tensor, centre: float, generator: torch.Generator) -> None:
    tensor.uniform_(centre * (1 - _SPREAD), centre * (1 + _SPREAD), generator=generator)
