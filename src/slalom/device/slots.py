"""A CUDA device that writes its claims where it is told, and works beside who asks it; see `link.port.SlotDevice`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.linear import Words
from slalom.arithmetic.pieces import Passage
from slalom.device.cuda import CudaDevice, Event, is_packed, new_event
from slalom.device.driver import can_wait, fetch_rows, send_rows, wait_for_word, write_word
from slalom.device.pinned import as_host_tensor, can_register, register_host, unregister_host
from slalom.device.recording import Recording, Results
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.port import AheadRun, Place, Wait
from slalom.plan.footprint import gpu_footprint


class CudaSlotDevice(CudaDevice):
    """A `SlotDevice` on one CUDA GPU. Memory is pinned where CUDA lets it be, so that copies overlap with kernels.

    A ring is filled, and another emptied, by the streams that copy: they wait for the word that says that a place was
    read, or a piece written, and write the one that says that they have done the other, so that no thread stands
    between the two sides.
    """

    _memory: NDArray[np.uint8] | None = None

    def map_memory(self, memory: NDArray[np.uint8], batch: int) -> None:
        """Pins the memory; where that is refused, copies go through CUDA's own. See `link.port.SlotDevice`."""
        self._require_room(batch)
        self._memory = None
        with suppress(DeviceError):
            register_host(memory)
            self._memory = memory

    def unmap_memory(self) -> None:
        """Waits for the GPU and lets the memory go."""
        torch.cuda.synchronize(self.device)
        if self._memory is not None:
            unregister_host(self._memory)
        self._memory = None

    def _require_room(self, batch: int) -> None:
        """Raises MemoryError where the GPU cannot hold what exchanges of so many items take, beside the weights."""
        self._recordings.clear()
        torch.cuda.empty_cache()
        footprint = gpu_footprint(self.loaded.plan)
        free, _ = torch.cuda.mem_get_info(self.device)
        needed = footprint.recordings(batch)
        if needed > free:
            raise MemoryError(
                f"the plan takes up to {needed / 1e9:.1f} GB of the GPU's memory for micro-batches of {batch} images, "
                f"and {free / 1e9:.1f} GB are free"
            )
        self._recordings.sizes = 2 if footprint.recordings(2 * batch) <= free else 1

    @property
    def streams(self) -> bool:
        """Whether the GPU can wait for a word, and memory be pinned: what a ring needs."""
        return can_wait(self.device.index) and can_register()

    def begin_compute(self, step_names: Sequence[str], words: Words | Passage, outs: Sequence[Place]) -> Sequence[Wait]:
        """Starts linear steps that read one value; see `CudaDevice.submit_compute`."""
        return [event.synchronize for event in self.submit_compute(step_names, words, outs)]

    def begin_ahead(self, activation: NDArray[np.int16]) -> AheadRun:
        """Sends the activation up. Each claim is computed once it has a place to go, in plan order."""
        self._check_activation(activation)
        wide = self._is_wide(self.loaded.plan.graph.input.name, activation)
        names = list(self.loaded.linear_steps)

        def work(placed: Tensor) -> Iterator[Results]:
            return ((claim,) for _, claim in self.loaded.walk(placed, {}, wide))

        shape, dtype = activation.shape, as_host_tensor(activation).dtype
        recording = self._recordings.of((("ahead", "slots"), dtype, wide), (shape, dtype), work)
        self._fill(recording, activation)
        return _CudaAhead(self, recording, names)

    def place(self, recording: Recording, position: int, name: str, out: Place) -> Wait:
        """Replays the kernels up to one claim of a recording, and copies it out."""
        graph, (result,) = recording.segments[position]
        self._check_out(name, len(recording.source), out, True)
        with torch.cuda.stream(self._run):
            graph.replay()
            sent = self._packed(result) if is_packed(out) else result
        event = self._deliver(sent, out)
        if sent is not result:  # a recording's own tensors stay; this one may go once it is copied
            sent.record_stream(self._down)
        if position + 1 == len(self.loaded.linear_steps):
            recording.read.record(self._run)
            recording.taken.record(self._down)
        wait: Wait = event.synchronize
        return wait

    def _deliver(self, result: Tensor, out: Place) -> Event:
        return self._pour(result, out) if isinstance(out, Passage) else self._download(result, out)

    def _pour(self, result: Tensor, passage: Passage) -> Event:
        """Has the stream that copies put a claim into the ring, piece by piece, and gives the event of its end."""
        self._require_pinned()
        ring, row = passage.ring, passage.count * passage.width
        ready, taken = ring.ready.ctypes.data, ring.taken.ctypes.data
        self._down.wait_stream(self._run)
        for piece in passage.each():
            width = (piece.end - piece.begin) * passage.width
            wait_for_word(self._down, taken, piece.number + 1 - len(ring.places))
            source = result.data_ptr() + piece.begin * passage.width
            fetch_rows(self._down, source, row, piece.place.ctypes.data, width, passage.batch)
            write_word(self._down, ready, piece.number + 1)
        event = new_event()
        event.record(self._down)
        return event

    def _send(self, recording: Recording, host: Place) -> None:
        """Has the stream that copies take words from where they lie, or piece by piece out of the ring."""
        if not isinstance(host, Passage):
            super()._send(recording, host)
            return
        self._require_pinned()
        words, ring, target = host, host.ring, recording.source.data_ptr()
        row = words.count * words.width
        ready, taken = ring.ready.ctypes.data, ring.taken.ctypes.data
        for piece in words.each():
            width = (piece.end - piece.begin) * words.width
            wait_for_word(self._up, ready, piece.number + 1)
            send_rows(self._up, piece.place.ctypes.data, target + piece.begin * words.width, row, width, words.batch)
            write_word(self._up, taken, piece.number + 1)

    def _require_pinned(self) -> None:
        if self._memory is None or not self.streams:
            raise DeviceError("the GPU cannot use a ring here", hint="CUDA must be able to pin the shared memory")

    def _packed(self, claim: Tensor) -> Tensor:
        from slalom.device.kernels.packing import packed_claim

        return packed_claim(claim)


class _CudaAhead:
    """A whole network on its way: claims come in plan order."""

    def __init__(self, device: CudaSlotDevice, recording: Recording, names: Sequence[str]) -> None:
        self._device = device
        self._recording = recording
        self._names = names
        self._next = 0

    def give(self, position: int, out: Place) -> Wait:
        """See `AheadRun`. Raises ApiMisuse where it is not the next claim's turn."""
        if position != self._next:
            raise ApiMisuse("claims of a network under way come in the plan's order")
        self._next += 1
        return self._device.place(self._recording, position, self._names[position], out)
