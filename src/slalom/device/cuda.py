"""A device on a CUDA GPU: exact kernels, weights and activations that stay there, copies that overlap with the work.

Three streams: words go up, kernels run, claims go down. Whatever is called `submit_` returns at once, with an event for
each claim that says when it lies in the caller's memory; copies only overlap where that memory is pinned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.linear import Words, check_words
from slalom.device.pinned import as_host_tensor, pinned_array, pinned_copy
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.port import Claim
from slalom.plan import Plan
from slalom.plan.steps import Activation, Linear

if TYPE_CHECKING:
    from slalom.device.resident import ResidentPlan

Host = NDArray[Any]
Event = torch.cuda.Event

_AHEAD_BYTES = 2**29  # of claims in flight at a time when `run_ahead` makes room for them itself


class CudaDevice:
    """A `DevicePort` on one CUDA GPU, one caller at a time.

    `index` says which GPU. Raises DeviceError where there is none, where triton is missing, or where the kernels do not
    give the reference's bits on it.
    """

    def __init__(self, index: int = 0) -> None:
        check_cuda(index)
        self.device = torch.device("cuda", index)
        self._up, self._run, self._down = (torch.cuda.Stream(self.device) for _ in range(3))
        self._loaded: ResidentPlan | None = None

    @property
    def loaded(self) -> ResidentPlan:
        """The plan being served. Raises ApiMisuse before `load` and after `close`."""
        if self._loaded is None:
            raise ApiMisuse("the device has no plan", hint="call load first")
        return self._loaded

    # ------------------------------------------------------------ the port

    def load(self, plan: Plan) -> None:
        """Copies the weights and epilogues of a plan to the GPU; it replaces the one before."""
        from slalom.device.resident import ResidentPlan

        with torch.cuda.stream(self._run):
            self._loaded = ResidentPlan(plan, self.device)
        torch.cuda.synchronize(self.device)

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The claim of every linear step, in plan order, each as soon as it has arrived; see `DevicePort`.

        The GPU goes on meanwhile. Raises ApiMisuse for another shape or dtype.
        """
        return self._run_ahead(pinned_copy(self._check_activation(activation)))

    def compute(self, step_names: Sequence[str], words: Words) -> Sequence[NDArray[np.int32]]:
        """The claims of linear steps that read one value; see `DevicePort`. Raises ApiMisuse for an unknown step."""
        shapes = [self._step_shape(name) for name in step_names]
        outs = [pinned_array((len(words), *shape), np.int32) for shape in shapes]
        for event in self.submit_compute(step_names, pinned_copy(words), outs):
            event.synchronize()
        return outs

    def run(self, activation: NDArray[np.int16]) -> Sequence[NDArray[np.float32]]:
        """The outputs of the whole network, float32 [B, *item shape]; see `DevicePort`."""
        plan = self.loaded
        host = pinned_copy(self._check_activation(activation))
        values: dict[str, Tensor] = {}
        with torch.cuda.stream(self._run):
            for _ in plan.walk(self._upload(host), values, self._is_wide(plan.plan.graph.input.name, host)):
                pass
        results = [values[output.source] for output in plan.plan.graph.outputs]
        outs = [pinned_array(tuple(result.shape), np.float32) for result in results]
        for event in [self._download(result, out) for result, out in zip(results, outs, strict=True)]:
            event.synchronize()
        return outs

    def close(self) -> None:
        """Waits for the GPU and drops the plan. May be called twice."""
        if self._loaded is not None:
            torch.cuda.synchronize(self.device)
        self._loaded = None

    # ------------------------------------------------------------ for a caller who brings the memory

    def submit_compute(self, step_names: Sequence[str], words: Words, outs: Sequence[Host]) -> list[Event]:
        """Starts the claims of linear steps that read one value, and gives one event a step.

        words: as in `compute`, left alone until the events are done. outs: one array a step, C-contiguous: int32
        [B, *output shape], or uint8 of 3 bytes an element where `words` is int16 and the claim `packs`. Pinned memory
        (`slalom.device.pinned`) lets copies overlap. Raises ApiMisuse for arrays that do not fit.
        """
        check_words(words)
        if not step_names:
            return []
        for name in step_names:
            if words.shape[1:] != self._step_input(name):
                raise ApiMisuse(f"step {name!r:.80} takes items of {self._step_input(name)}, not {words.shape[1:]}")
        for name, out in zip(step_names, outs, strict=True):
            self._check_out(name, len(words), out, words.dtype == np.int16)
        source = next(step.source for step in self._linear_steps() if step.name == step_names[0])
        events = []
        with torch.cuda.stream(self._run):
            placed, wide = self._upload(words), self._is_wide(source, words)
            for name, out in zip(step_names, outs, strict=True):
                events.append(self._download(self.loaded.linear(name, placed, wide), out))
        return events

    def submit_ahead(self, activation: NDArray[np.int16], outs: Sequence[Host]) -> list[Event]:
        """Starts the whole network, and gives an event for the claim of every linear step, in plan order.

        activation: int16 [B, *input shape], left alone until the first event is done. outs: as in `submit_compute`,
        one for every linear step. Raises ApiMisuse for arrays that do not fit.
        """
        self._check_activation(activation)
        names = list(self.loaded.linear_steps)
        for name, out in zip(names, outs, strict=True):
            self._check_out(name, len(activation), out, True)
        wide = self._is_wide(self.loaded.plan.graph.input.name, activation)
        events = []
        with torch.cuda.stream(self._run):
            walk = self.loaded.walk(self._upload(activation), {}, wide)
            for (_, claim), out in zip(walk, outs, strict=False):  # what follows the last claim is nobody's
                events.append(self._download(claim, out))
                if len(events) == len(outs):
                    break
        return events

    def packs(self, step_name: str) -> bool:
        """Whether the claim of a linear step fits 3 bytes an element where the device sees the plain activation."""
        self._step_shape(step_name)
        return self.loaded.linear_steps[step_name].packs

    # ------------------------------------------------------------ what both are made of

    def _run_ahead(self, host: NDArray[np.int16]) -> Iterator[Claim]:
        waiting: deque[tuple[str, Host, Event]] = deque()
        with torch.cuda.stream(self._run):
            placed = self._upload(host)
        walk = self.loaded.walk(placed, {}, self._is_wide(self.loaded.plan.graph.input.name, host))
        ended = False
        while waiting or not ended:
            while not ended and sum(out.nbytes for _, out, _ in waiting) < _AHEAD_BYTES:
                with torch.cuda.stream(self._run):  # LOAD-BEARING: left before a yield, for it is the thread's
                    item = next(walk, None)
                if item is None:
                    ended = True
                    break
                out = pinned_array(tuple(item[1].shape), np.int32)
                waiting.append((item[0], out, self._download(item[1], out)))
            if waiting:
                name, out, event = waiting.popleft()
                event.synchronize()
                yield Claim(name, out)

    def _upload(self, host: Host) -> Tensor:
        """The array on the GPU, ready for the stream that runs kernels."""
        with torch.cuda.stream(self._up):
            placed = torch.empty(host.shape, dtype=as_host_tensor(host).dtype, device=self.device)
            placed.copy_(as_host_tensor(host), non_blocking=True)
        self._run.wait_stream(self._up)
        placed.record_stream(self._run)
        return placed

    def _download(self, result: Tensor, out: Host) -> Event:
        """Copies a result of the stream that runs kernels into `out`, packed where that is uint8; gives the event."""
        if out.dtype == np.uint8:
            from slalom.device.kernels.packing import pack_claim

            with torch.cuda.stream(self._run):
                packed = torch.empty(out.size, dtype=torch.uint8, device=self.device)
                pack_claim(result, packed)
                result = packed
        event = torch.cuda.Event(blocking=True)
        self._down.wait_stream(self._run)
        with torch.cuda.stream(self._down):
            as_host_tensor(out).view(-1).copy_(result.view(-1), non_blocking=True)
            event.record(self._down)
        result.record_stream(self._down)
        return event

    # ------------------------------------------------------------ what the arrays must be

    def _linear_steps(self) -> list[Linear]:
        return [step for step in self.loaded.plan.graph.steps if isinstance(step, Linear)]

    def _step_shape(self, name: str) -> tuple[int, ...]:
        if name not in self.loaded.linear_steps:
            raise ApiMisuse(f"the plan has no linear step {name!r:.80}")
        return self.loaded.linear_steps[name].output_shape

    def _step_input(self, name: str) -> tuple[int, ...]:
        self._step_shape(name)
        return self.loaded.linear_steps[name].input_shape

    def _check_activation(self, activation: NDArray[np.int16]) -> NDArray[np.int16]:
        shape = self.loaded.plan.graph.input.output.shape
        if activation.dtype != np.int16 or activation.shape[1:] != shape:
            raise ApiMisuse(f"this plan takes int16 [B, {shape}], not {activation.dtype} {activation.shape}")
        return activation

    def _check_out(self, name: str, batch: int, out: Host, plain: bool) -> None:
        count = batch * int(np.prod(self._step_shape(name), dtype=np.int64))
        packed = out.dtype == np.uint8 and plain and self.packs(name)
        if not (packed or out.dtype == np.int32) or out.size != count * (3 if packed else 1):
            raise ApiMisuse(f"step {name!r:.80} gives {count} words, which do not fit {out.dtype} {out.shape}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ApiMisuse(f"the array for step {name!r:.80} must be contiguous and writable")

    def _is_wide(self, source: str, words: Host) -> bool:
        """Whether int16 words leave their activation's range, so that all digits are needed: a caller's fault."""
        kind = self.loaded.plan.types[source]
        if words.dtype != np.int16 or not isinstance(kind, Activation):
            return False
        return int(words.min()) < -kind.limit or int(words.max()) > kind.limit


@cache
def check_cuda(index: int) -> None:
    """Raises DeviceError unless GPU `index` is there and its kernels are exact; tested once a process."""
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise DeviceError(f"there is no CUDA device {index}", hint="run nvidia-smi, and install a torch with CUDA")
    try:
        from slalom.device.exactness import is_exact
    except ModuleNotFoundError as error:
        raise DeviceError(f"the CUDA device needs {error.name}", hint='pip install "slalom[cuda]"') from error
    with torch.cuda.device(index):
        if not is_exact(torch.device("cuda", index)):
            raise DeviceError(f"the kernels are not exact on CUDA device {index}")
