"""What a worker could compute with on this machine: run in a process of its own, for `slalom doctor`."""

from __future__ import annotations

from typing import Any


def probe() -> list[dict[str, Any]]:
    """A trial each of torch's exact product on the CPU, and of a GPU: name, passed, found, hint."""
    try:
        import torch
    except ModuleNotFoundError:
        missing = {"found": "torch is not installed", "hint": "install the device extra, see the README"}
        return [{"name": "torch", "passed": False, **missing}, {"name": "gpu", "passed": False, **missing}]
    return [_probe_torch(), _probe_gpu(torch)]


def _probe_torch() -> dict[str, Any]:
    from slalom.device.engine import TorchEngine
    from slalom.errors import DeviceError

    try:
        product = TorchEngine().name
    except DeviceError as error:
        hint = "this processor must not serve as a device: every answer would be refused"
        return {"name": "torch", "passed": False, "found": str(error), "hint": hint}
    return {"name": "torch", "passed": True, "found": f"exact: products of {product}", "hint": None}


def _probe_gpu(torch: Any) -> dict[str, Any]:
    if not torch.cuda.is_available():
        hint = "a worker computes on the CPU; for a GPU install torch's CUDA build and a driver"
        return {"name": "gpu", "passed": False, "found": "none that torch can use", "hint": hint}
    return {"name": "gpu", "passed": True, "found": torch.cuda.get_device_name(0), "hint": None}
