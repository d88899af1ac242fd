"""OpenVINO beside the rest: what it cannot run is left out by name, and nothing else is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slalom.errors import ModelError

pytest.importorskip("openvino", reason="openvino is here only where engines are compared")


class Stubborn(nn.Module):
    """Runs for nobody."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not for a converter")


def test_a_network_that_openvino_does_not_take_is_a_model_error() -> None:
    from slalom.bench.openvino_baseline import convert

    with pytest.raises(ModelError, match="OpenVINO does not take this network: "):
        convert(Stubborn(), np.zeros((1, 3, 8, 8), np.float32))
