"""The engine of a device that computes on a CUDA GPU one call at a time, with arrays in and out.

It is for devices whose claims somebody changes on the host, as the cheating ones do: products by the GPU's own kernels,
all else as on the CPU. An honest GPU is `device.cuda`, whose values stay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.digits import MAXIMUM_DIGITS
from slalom.device.cuda import check_cuda
from slalom.device.engine import PreparedMap, TorchEngine
from slalom.device.resident import ResidentMap, place_map
from slalom.plan.shapes import Geometry


@dataclass(frozen=True, eq=False)
class _PlacedMap(PreparedMap):
    """A map whose weights are on the GPU."""

    resident: ResidentMap


class CudaEngine(TorchEngine):
    """As `TorchEngine`, by the kernels of GPU `index`, whose exactness is tested once a process. Raises DeviceError."""

    def __init__(self, index: int = 0) -> None:
        check_cuda(index)
        self.device = torch.device("cuda", index)

    @property
    def name(self) -> str:
        """Of the product."""
        return "cuda"

    def _prepare_map(self, geometry: Geometry, weight: NDArray[np.int8]) -> PreparedMap:
        return _PlacedMap(geometry, (), None, place_map(geometry, weight, MAXIMUM_DIGITS, self.device))

    def _apply_map(self, prepared: PreparedMap, image: Tensor) -> Tensor:
        return cast(_PlacedMap, prepared).resident.apply(image, MAXIMUM_DIGITS)
