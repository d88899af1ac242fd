"""A device on a CUDA GPU: exact kernels, weights and activations that stay there, copies that overlap with the work.

Three streams: words go up, kernels run, claims go down. Whatever is called `submit_` returns at once, with an event for
each claim that says when it lies in the caller's memory; copies only overlap where that memory is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.linear import Words, check_words
from slalom.arithmetic.pieces import Passage
from slalom.device.pinned import as_host_tensor, pinned_array, pinned_copy
from slalom.device.recording import Recording, Recordings, Results, Work
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.port import Claim, Place
from slalom.plan import Plan
from slalom.plan.steps import Activation, Linear

if TYPE_CHECKING:
    from slalom.device.resident import ResidentPlan

Host = NDArray[Any]
Event = torch.cuda.Event


class CudaDevice:
    """A `DevicePort` on one CUDA GPU, one caller at a time.

    `index` says which GPU. Raises DeviceError where there is none, where triton is missing, or where the kernels do not
    give the reference's bits on it.
    """

    def __init__(self, index: int = 0) -> None:
        check_cuda(index)
        self.device = torch.device("cuda", index)
        self._up, self._run, self._down = (torch.cuda.Stream(self.device) for _ in range(3))
        self._recordings = Recordings(self._run)
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

        self._recordings.clear()
        with torch.cuda.stream(self._run):
            self._loaded = ResidentPlan(plan, self.device)
        torch.cuda.synchronize(self.device)

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The claim of every linear step, in plan order, each as soon as it has arrived; see `DevicePort`.

        The GPU goes on meanwhile. Raises ApiMisuse for another shape or dtype.
        """
        host = pinned_copy(self._check_activation(activation))
        steps = self.loaded.linear_steps
        outs = [pinned_array((len(host), *step.output_shape), np.int32) for step in steps.values()]
        events = self.submit_ahead(host, outs)
        return self._arrivals(list(steps), outs, events)

    def compute(self, step_names: Sequence[str], words: Words) -> Sequence[NDArray[np.int32]]:
        """The claims of linear steps that read one value; see `DevicePort`. Raises ApiMisuse for an unknown step."""
        shapes = [self._step_shape(name) for name in step_names]
        outs = [pinned_array((len(words), *shape), np.int32) for shape in shapes]
        for event in self.submit_compute(step_names, pinned_copy(words), outs):
            event.synchronize()
        return outs

    def run(self, activation: NDArray[np.int16]) -> Sequence[NDArray[np.float32]]:
        """The outputs of the whole network, float32 [B, *item shape]; see `DevicePort`."""
        host = pinned_copy(self._check_activation(activation))
        graph = self.loaded.plan.graph
        types = [self.loaded.plan.types[output.source] for output in graph.outputs]
        outs = [pinned_array((len(host), *kind.shape), np.float32) for kind in types]
        wide = self._is_wide(graph.input.name, host)
        for event in self._submit(("run",), host, outs, lambda source: self.loaded.outputs(source, wide), wide):
            event.synchronize()
        return outs

    def close(self) -> None:
        """Waits for the GPU and drops the plan. May be called twice."""
        self._recordings.clear()
        self._loaded = None

    # ------------------------------------------------------------ for a caller who brings the memory

    def submit_compute(self, step_names: Sequence[str], words: Words | Passage, outs: Sequence[Place]) -> list[Event]:
        """Starts the claims of linear steps that read one value, and gives one event a step.

        words: as in `compute`, left alone until the events are done; or in pieces, still to come. outs: one array a
        step, C-contiguous: int32 [B, *output shape], or uint8 of 3 bytes an element where `words` is int16 and the
        claim `packs`. Pinned memory (`slalom.device.pinned`) lets copies overlap. Raises ApiMisuse for arrays that do
        not fit.
        """
        if not step_names:
            return []
        for name in step_names:
            self._check_words(name, words)
        for name, out in zip(step_names, outs, strict=True):
            self._check_out(name, words.shape[0], out, words.dtype == np.int16)
        source = next(step.source for step in self._linear_steps() if step.name == step_names[0])
        wide = not isinstance(words, Passage) and self._is_wide(source, words)

        def work(placed: Tensor) -> Iterator[Results]:
            claims = (self.loaded.linear(name, placed, wide) for name in step_names)
            return _as_sent(claims, outs)

        return self._submit(("compute", *step_names), words, outs, work, wide, self._step_input(step_names[0]))

    def submit_ahead(self, activation: NDArray[np.int16], outs: Sequence[Place]) -> list[Event]:
        """Starts the whole network, and gives an event for the claim of every linear step, in plan order.

        activation: int16 [B, *input shape], left alone until the first event is done. outs: as in `submit_compute`,
        one for every linear step. Raises ApiMisuse for arrays that do not fit.
        """
        self._check_activation(activation)
        names = list(self.loaded.linear_steps)
        for name, out in zip(names, outs, strict=True):
            self._check_out(name, len(activation), out, True)
        wide = self._is_wide(self.loaded.plan.graph.input.name, activation)

        def work(placed: Tensor) -> Iterator[Results]:
            claims = (claim for _, claim in self.loaded.walk(placed, {}, wide))
            return _as_sent(islice(claims, len(outs)), outs)  # what follows the last claim is nobody's

        return self._submit(("ahead",), activation, outs, work, wide)

    def packs(self, step_name: str) -> bool:
        """Whether the claim of a linear step fits 3 bytes an element where the device sees the plain activation."""
        self._step_shape(step_name)
        return self.loaded.linear_steps[step_name].packs

    # ------------------------------------------------------------ what both are made of

    def _arrivals(self, names: list[str], outs: list[Host], events: list[Event]) -> Iterator[Claim]:
        for name, out, event in zip(names, outs, events, strict=True):
            event.synchronize()
            yield Claim(name, out)

    def _submit(
        self,
        key: tuple[str, ...],
        host: Place,
        outs: Sequence[Place],
        work: Work,
        wide: bool,
        item: tuple[int, ...] | None = None,
    ) -> list[Event]:
        """Up, through the kernels of `work`, and down: an event for each of `outs`. `item`: the shape of each of what
        comes in pieces."""
        if isinstance(host, Passage):
            shape, dtype = (host.batch, *(item or ())), torch.int32
        else:
            shape, dtype = host.shape, as_host_tensor(host).dtype
        sent = tuple(is_packed(out) for out in outs)
        recording = self._recordings.of((key, sent, dtype, wide), (shape, dtype), work)
        self._fill(recording, host)
        events = []
        places = iter(outs)
        for graph, results in recording.segments:
            with torch.cuda.stream(self._run):
                graph.replay()
            events += [self._deliver(result, next(places)) for result in results]
        recording.read.record(self._run)
        recording.taken.record(self._down)
        return events

    def _fill(self, recording: Recording, host: Place) -> None:
        """Sends a source up, once what the recording held was read and its results were taken away."""
        self._up.wait_event(recording.read)
        self._send(recording, host)
        self._run.wait_stream(self._up)
        self._run.wait_event(recording.taken)

    def _send(self, recording: Recording, host: Place) -> None:
        """Copies a source into a recording's."""
        if isinstance(host, Passage):
            raise ApiMisuse("only a device that maps the memory takes words in pieces")
        with torch.cuda.stream(self._up):
            recording.source.copy_(as_host_tensor(host), non_blocking=True)

    def _deliver(self, result: Tensor, out: Place) -> Event:
        """Copies a result of the stream that runs kernels where it belongs."""
        if isinstance(out, Passage):
            raise ApiMisuse("only a device that maps the memory writes claims in pieces")
        return self._download(result, out)

    def _download(self, result: Tensor, out: Host) -> Event:
        """Copies a result of the stream that runs kernels into `out`, and gives the event of its arrival."""
        event = new_event()
        self._down.wait_stream(self._run)
        with torch.cuda.stream(self._down):
            as_host_tensor(out).view(-1).copy_(result.view(-1), non_blocking=True)
            event.record(self._down)
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

    def _check_words(self, name: str, words: Words | Passage) -> None:
        shape = self._step_input(name)
        if isinstance(words, Passage):
            if words.packed or words.count != int(np.prod(shape, dtype=np.int64)):
                raise ApiMisuse(f"step {name!r:.80} takes items of {shape}, not of {words.count} words in pieces")
            return
        check_words(words)
        if words.shape[1:] != shape:
            raise ApiMisuse(f"step {name!r:.80} takes items of {shape}, not {words.shape[1:]}")

    def _check_out(self, name: str, batch: int, out: Place, plain: bool) -> None:
        count = batch * int(np.prod(self._step_shape(name), dtype=np.int64))
        packed = is_packed(out) and plain and self.packs(name)
        if isinstance(out, Passage):
            if out.packed != packed or out.batch * out.count != count:
                raise ApiMisuse(f"step {name!r:.80} gives {count} words, which the pieces do not take")
            return
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


def new_event() -> Event:
    """An event for which a thread waits asleep."""
    return torch.cuda.Event(blocking=True)


def is_packed(out: Place) -> bool:
    """Whether a claim goes there packed to 3 bytes an element."""
    return out.packed if isinstance(out, Passage) else out.dtype == np.uint8


def _as_sent(claims: Iterator[Tensor], outs: Sequence[Place]) -> Iterator[Results]:
    """The claims as `outs` take them: packed to 3 bytes an element, or as they are."""
    from slalom.device.kernels.packing import packed_claim

    for claim, out in zip(claims, outs, strict=True):
        yield (packed_claim(claim) if is_packed(out) else claim,)


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
