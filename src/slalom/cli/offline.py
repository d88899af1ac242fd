"""Compiling, and the float network, in a process of their own: the process that will hold secrets imports no torch.

That process is the owner's own and is trusted as far as any compiler is; it sees the calibration images and the images
that the float network is compared on, never a key, a mask or a probe.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from slalom.cli.network import Network, NetworkOptions, compile_network, is_plan_file, load_network
from slalom.errors import ModelError
from slalom.plan import Plan

_END_SECONDS = 2.0


@contextmanager
def offline_network(model: str, options: NetworkOptions) -> Iterator[Network]:
    """The plan file MODEL, or a network compiled in another process, which keeps the float network meanwhile.

    Raises ModelError, InputError, ApiMisuse.
    """
    if is_plan_file(model):
        yield load_network(model, options)
        return
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, model, options), daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()
    try:
        content, origin = _receive(ours)
        yield Network(Plan.from_bytes(content), lambda batch: _ask(ours, batch), origin)
    finally:
        ours.close()
        process.join(0 if process.exitcode is None else _END_SECONDS)
        process.terminate()
        process.join(_END_SECONDS)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds back what the keyboard says: for this process until afterwards, for one that is started here for good.

    An interrupt is for the process that the user started; half-way through a start it would leave the other one to
    explain, with a traceback, what it was not told.
    """
    resource_tracker.ensure_running()  # before, for it would let interrupts through again
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if held and callable(handler):
        handler(signal.SIGINT, None)


def _ask(pipe: Connection, batch: np.ndarray) -> np.ndarray:
    pipe.send(batch)
    answer: np.ndarray = _receive(pipe)
    return answer


def _receive(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except EOFError as error:
        raise ModelError("the process that compiles the network died", hint="is there enough memory?") from error
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _serve(pipe: Connection, model: str, options: NetworkOptions) -> None:
    """The other process: the plan first, then the float network's answers until nobody asks."""
    try:
        network = compile_network(model, options)
        pipe.send((network.plan.to_bytes(), network.origin))
        while network.float_network is not None:
            pipe.send(network.float_network(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # noqa: BLE001 - carried to the process that waits, which raises it
        pipe.send(error)
