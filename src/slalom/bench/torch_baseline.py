"""Plain torch to compare with: fp32 on the trusted cores, fp16 on the GPU. Only the offline process imports it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from slalom.bench.float_timing import (
    Answer,
    CopyRates,
    Engine,
    FloatTiming,
    MeasureCopies,
    Question,
    TimeFloat,
    Versions,
)
from slalom.bench.timing import Effort, time_requests
from slalom.errors import ModelError

if TYPE_CHECKING:
    from slalom.bench.openvino_baseline import OpenVinoNetwork

GPU_BATCHES = (64, 128, 256)
_COPIES = 9


class TorchNetwork:
    """A float network: called, it gives the rows of its first output; asked, it gives timings."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._converted: OpenVinoNetwork | None = None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Float32 [B, count] for float32 images [B, ...]."""
        with torch.no_grad():
            outputs = self._module(torch.from_numpy(batch))
        first: np.ndarray = (outputs[0] if isinstance(outputs, tuple | list) else outputs).numpy()
        return first.reshape(len(first), -1)

    def answer(self, question: Question) -> Answer:
        """What `question` asks for. Raises ModelError where this network does not run in that engine."""
        if not isinstance(question, TimeFloat):
            return answer_machine(question)
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, question.threads))
        try:
            return self._time(question)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise ModelError(f"it does not run this network: {reason}") from error
        finally:
            torch.set_num_threads(before)

    def _time(self, question: TimeFloat) -> FloatTiming:
        if question.engine is Engine.TORCH:
            return time_cpu(self._module, question)
        if question.engine is Engine.GPU:
            return time_gpu(self._module, question)
        return self._openvino().time(question)

    def _openvino(self) -> OpenVinoNetwork:
        if self._converted is None:
            try:
                from slalom.bench.openvino_baseline import OpenVinoNetwork
            except ModuleNotFoundError as error:
                raise ModelError(f"{error.name} is not installed") from error
            self._converted = OpenVinoNetwork(self._module)
        return self._converted


def answer_machine(question: Question) -> Answer:
    """What needs no network: copies, None where torch finds no GPU; and versions. Raises ModelError for a timing."""
    if isinstance(question, TimeFloat):
        raise ModelError("a plan file holds no float network")
    if isinstance(question, MeasureCopies):
        return measure_copies(question.size) if torch.cuda.is_available() else None
    return Versions(str(torch.__version__), _version("openvino"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def time_cpu(module: nn.Module, question: TimeFloat) -> FloatTiming:
    """fp32, channels last, in inference mode."""
    network, images = _arranged(copy.deepcopy(module), torch.from_numpy(question.images))
    with torch.inference_mode():
        seconds = time_requests(lambda: network(images), question.effort)
    return FloatTiming(seconds, len(images), "channels last")


def time_gpu(module: nn.Module, question: TimeFloat) -> FloatTiming:
    """fp16, channels last, in inference mode, images on the GPU already: the fastest of a few batches."""
    if not torch.cuda.is_available():
        raise ModelError("no GPU that torch can use")
    torch.backends.cudnn.benchmark = True
    network = copy.deepcopy(module).cuda().half()
    effort = Effort(question.effort.seconds / len(GPU_BATCHES), question.effort.repeats)
    try:
        tried = [_time_on_gpu(network, question.images, batch, effort) for batch in GPU_BATCHES]
    finally:
        del network
        torch.cuda.empty_cache()
    found = [timing for timing in tried if timing is not None]
    if not found:
        raise ModelError(f"the GPU has no memory for a batch of {GPU_BATCHES[0]}")
    return max(found, key=lambda timing: timing.images / statistics.median(timing.seconds))


def _time_on_gpu(network: nn.Module, images: np.ndarray, batch: int, effort: Effort) -> FloatTiming | None:
    repeated = np.resize(images, (batch, *images.shape[1:]))
    try:
        network, given = _arranged(network, torch.from_numpy(repeated).cuda().half())
        with torch.inference_mode():
            seconds = time_requests(_synchronised(lambda: network(given)), effort)
    except torch.cuda.OutOfMemoryError:
        return None
    return FloatTiming(seconds, batch, f"batch {batch}, channels last, images on the GPU")


def _synchronised(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        work()
        torch.cuda.synchronize()

    return run


def _arranged(network: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """Both with the channels last, where the images have two axes beside them."""
    if images.dim() != 4:
        return network, images
    arranged: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return arranged, images.contiguous(memory_format=torch.channels_last)


def measure_copies(size: int) -> CopyRates:
    """Pinned host memory to the GPU and back, one way at a time and both at once, the median of a few copies."""
    sent, received = (torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2))
    given, answered = (torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def up() -> None:
        given.copy_(sent, non_blocking=True)

    def down() -> None:
        with torch.cuda.stream(aside):
            received.copy_(answered, non_blocking=True)

    def both() -> None:
        up()
        down()

    rates = [size / _median_seconds(work) for work in (up, down, both)]
    return CopyRates(torch.cuda.get_device_name(0), rates[0], rates[1], 2 * rates[2])


def _median_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_COPIES + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])
