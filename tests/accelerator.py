"""Where kernel tests run: a CUDA device where there is one, else the CPU through Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, so before slalom.device.kernels is imported

pytest.importorskip("triton", reason="the kernels need triton")

DEVICE = torch.device("cuda" if CUDA else "cpu")
# On a CUDA device the same tests are those of `make test-gpu`; the default run leaves them out there.
pytestmark = [pytest.mark.gpu] if CUDA else []
