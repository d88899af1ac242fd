"""The thread that fills a mask bank, behind the requests: the system runs it where nobody else wants the processor."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from slalom.arithmetic.dispatch import yield_the_processor
from slalom.errors import MaskError, SlalomError
from slalom.trusted.bank import MaskBank
from slalom.trusted.masks import MaskMaker

_LOOK_SECONDS = 0.5


class Refill:
    """Keeps a bank between its marks until it is stopped. `batches`: the micro-batches of a usual request.

    `maker` makes them, on threads of its own. Wakes when fewer images than the low mark are ready, and makes sets up to
    the target. What it fails with is told to those who wait for masks.
    """

    def __init__(self, bank: MaskBank, maker: MaskMaker, batches: Sequence[int]) -> None:
        self._bank = bank
        self._maker = maker
        self._usual = tuple(batches)
        self._turn = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slalom-masks", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends it once the mask that it is at is made; waits so many seconds at most."""
        self._stopped.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        yield_the_processor()
        filling = True  # until the target is reached for the first time
        try:
            while not self._stopped.is_set():
                if self._bank.bring_in(self._maker):
                    continue
                batch = self._bank.wanted(self._usual, self._usual[self._turn], filling=filling)
                filling = batch is not None
                if batch is None:
                    self._bank.wait_for_change(_LOOK_SECONDS)
                    continue
                self._bank.prepare(batch, self._maker)
                self._turn = (self._turn + 1) % len(self._usual)
        except SlalomError as error:
            self._bank.fail(error)
        except BaseException as error:  # noqa: BLE001 - carried to those who wait for masks, who raise it
            failure = MaskError(f"making masks ended with {type(error).__name__}")
            failure.__cause__ = error
            self._bank.fail(failure)
