"""Answers of a device that works beside who asks it: it is asked at once, and an answer goes out when it is there."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.pieces import Passage, Ring
from slalom.errors import ApiMisuse, SlalomError, WireError
from slalom.link.channel import ChannelClosedError
from slalom.link.message import Element, Errand, Failure, Header, Kind
from slalom.link.port import AheadRun, Place, SlotDevice, Wait
from slalom.link.region import PieceNumbers, Region, passage_of, word_passage_of
from slalom.link.serve import Asked, Mouth, Served

_JOIN_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_TYPES: Mapping[Element, np.dtype[Any]] = MappingProxyType(
    {Element.INT32: np.dtype(np.int32), Element.INT24: np.dtype(np.uint8), Element.FLOAT32: np.dtype(np.float32)}
)


class QueuedAnswering:
    """See `serve.Answering`. One thread takes asks and starts work, another waits for it and sends, in order."""

    def __init__(self, served: Served, mouth: Mouth) -> None:
        if not isinstance(served.device, SlotDevice):
            raise ApiMisuse("this device does not write answers where it is told")
        self._device = served.device
        self._layout = served.layout
        self._mouth = mouth
        self._region: Region | None = None
        self._ring: Ring | None = None
        self._pieces = PieceNumbers()
        self._word_ring: Ring | None = None
        self._word_pieces = PieceNumbers()
        self._runs: dict[int, tuple[AheadRun, Asked, int]] = {}  # by request: the run, its ask, claims still due
        self._failure: BaseException | None = None
        self._due: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = threading.Thread(target=self._send, name="slalom-answers", daemon=True)
        self._sender.start()
        self._ending, self._stopped = threading.Event(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="slalom-watch", daemon=True)
        self._watcher.start()

    def map(self, region: Region, batch: int) -> None:
        """Takes the memory, once nothing is under way in the one before."""
        idle = threading.Event()
        self._due.put(idle.set)
        while not idle.wait(_LOOK_SECONDS):
            self._let_pieces_go()  # whoever maps new memory reads none of the old
        if self._region is not None:
            self._device.unmap_memory()
        self._region, self._pieces, self._word_pieces = region, PieceNumbers(), PieceNumbers()
        self._ring, self._word_ring = region.claim_ring(), region.word_ring()
        self._device.map_memory(region.whole, batch)

    def compute(self, asked: Asked) -> None:
        """Starts the steps."""
        self._begin(asked.header, asked.errands, asked.words)

    def compute_in_pieces(self, header: Header, errands: tuple[Errand, ...], count: int, span: int) -> None:
        """Starts the steps, whose words come as they do."""
        if self._word_ring is None or not self._device.streams:
            raise WireError("words in pieces have no ring, or a device that takes none")
        words = word_passage_of(self._word_ring, self._word_pieces, header.batch, count, span)
        self._begin(header, errands, words)

    def _begin(self, header: Header, errands: tuple[Errand, ...], words: Place) -> None:
        names = [self._layout.steps[errand.step].name for errand in errands]
        outs = [self._claim_of(header, errand) for errand in errands]
        for wait, errand, out in zip(self._device.begin_compute(names, words, outs), errands, outs, strict=True):
            self._promise(wait, header, errand, out)

    def run_ahead(self, asked: Asked) -> None:
        """Starts the whole network."""
        run = self._device.begin_ahead(asked.words)
        self._runs[asked.header.request] = run, asked, len(self._layout.steps)
        for errand in asked.errands:
            self.grant(asked.header, errand)

    def grant(self, header: Header, errand: Errand) -> None:
        """Lets one claim go to its slot."""
        if header.request not in self._runs:
            raise WireError("a grant for nothing that was begun")
        run, asked, due = self._runs.pop(header.request)
        if due > 1:
            self._runs[header.request] = run, asked, due - 1
        out = self._claim_of(asked.header, errand)
        self._promise(run.give(errand.step, out), asked.header, errand, out)

    def run(self, asked: Asked) -> None:
        """Calls the device: nobody runs beside the whole network."""
        for errand, output in zip(asked.errands, self._device.run(asked.words), strict=True):
            out = self._slot_of(errand, output.shape)
            np.copyto(out, output, casting="no")
            self._promise(lambda: None, asked.header, errand, out)

    def say(self, header: Header) -> None:
        """Sends a header after every answer so far."""
        self._due.put(lambda: self._mouth.say(header))

    def stop(self) -> None:
        """Ends the threads, and lets the memory go."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        self._ending.set()
        self._due.put(None)
        if sender is not threading.current_thread():
            sender.join(_JOIN_SECONDS)
        if self._region is not None:
            self._device.unmap_memory()
        # LOAD-BEARING: only now, for the device may wait for pieces to be let go until it has let the memory go
        self._stopped.set()
        self._watcher.join()

    def _let_pieces_go(self) -> None:
        """Has nothing wait for the other side, which is at nothing any more: again and again, for it may write there
        too."""
        if self._ring is not None:
            self._ring.taken[0] = self._pieces.next
        if self._word_ring is not None:
            self._word_ring.ready[0] = self._word_pieces.next

    def _watch(self) -> None:
        """Lets pieces go once the other side is gone or this one ends, whatever the thread that serves is at.

        LOAD-BEARING: that thread may itself be waiting for the device, which waits for pieces that nobody reads.
        """
        while not self._stopped.wait(_LOOK_SECONDS):
            if self._ending.is_set() or self._mouth.is_left:
                self._let_pieces_go()

    def _claim_of(self, asked: Header, errand: Errand) -> Place:
        shape = (asked.batch, *self._layout.steps[errand.step].output.shape)
        if errand.span:
            if self._ring is None:
                raise WireError("a claim in pieces has no ring")
            return passage_of(self._ring, self._pieces, errand, asked.batch, math.prod(shape[1:]))
        if errand.element is Element.INT24:
            return self._slot_of(errand, (asked.batch, math.prod(shape[1:]), 3))
        return self._slot_of(errand, shape)

    def _slot_of(self, errand: Errand, shape: tuple[int, ...]) -> NDArray[Any]:
        if self._region is None or errand.element not in _TYPES:
            raise WireError("an answer has no memory, or a type that nobody gives")
        return self._region.claim(errand.slot, shape, _TYPES[errand.element])

    def _promise(self, wait: Wait, asked: Header, errand: Errand, out: Place) -> None:
        if self._failure is not None:
            raise self._failure
        kind = Kind.OUTPUT if errand.element is Element.FLOAT32 else Kind.CLAIM
        header = Header(kind, 0, asked.request, errand.step, errand.slot, asked.batch, errand.element, out.nbytes)

        def fulfil() -> None:
            wait()
            if isinstance(out, Passage):
                self._mouth.say(header)
            else:
                self._mouth.answer(header, out)

        self._due.put(fulfil)

    def _send(self) -> None:
        try:
            while (due := self._due.get()) is not None:
                due()
        except ChannelClosedError:
            return  # nobody is there any more
        except BaseException as error:  # noqa: BLE001 - kept for the thread that serves, which raises it
            self._failure = error
            with contextlib.suppress(SlalomError):
                self._mouth.say(Header(Kind.FAILURE, 0, step=Failure.DEVICE))
