"""Compiling, and the float network, in a process of their own: the process that will hold secrets imports no torch.

That process is the owner's own and is trusted as far as any compiler is; it sees the calibration images and the images
that the float network is compared or timed on, never a key, a mask or a probe.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from slalom.bench.float_timing import Question, TellVersions, Versions
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
    with _process(_serve_network, model, options) as pipe:
        content, origin = _receive(pipe)
        plan = Plan.from_bytes(content)
        yield Network(plan, lambda batch: _ask(pipe, batch), origin, lambda question: _ask(pipe, question))


@contextmanager
def offline_timing(model: str, options: NetworkOptions) -> Iterator[Network]:
    """As `offline_network`, and for a plan file another process too, which can time what needs no network."""
    with offline_network(model, options) as network:
        if network.ask is not None:
            yield network
            return
        with _process(_serve_machine) as pipe:
            yield Network(network.plan, None, network.origin, lambda question: _ask(pipe, question))


@contextmanager
def _process(serve: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, *arguments), daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()
    try:
        yield ours
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


def _ask(pipe: Connection, question: np.ndarray | Question) -> Any:
    pipe.send(question)
    return _receive(pipe)


def _receive(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except EOFError as error:
        raise ModelError("the process that compiles the network died", hint="is there enough memory?") from error
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _serve_network(pipe: Connection, model: str, options: NetworkOptions) -> None:
    """The other process: the plan first, then the float network's answers until nobody asks."""

    def compiled() -> Callable[[Any], object]:
        network = compile_network(model, options)
        pipe.send((network.plan.to_bytes(), network.origin))
        return lambda question: _answer(network, question)

    _serve(pipe, compiled)


def _serve_machine(pipe: Connection) -> None:
    """The other process where there is no network to compile; it knows little where torch is not installed."""

    def prepared() -> Callable[[Any], object]:
        try:
            from slalom.bench.torch_baseline import answer_machine
        except ModuleNotFoundError:
            return lambda question: Versions("", "") if isinstance(question, TellVersions) else None
        return answer_machine

    _serve(pipe, prepared)


def _serve(pipe: Connection, prepare: Callable[[], Callable[[Any], object]]) -> None:
    try:
        answer = prepare()
        while True:
            question = pipe.recv()
            try:
                pipe.send(answer(question))
            except ModelError as error:  # this question has no answer; the next may have
                pipe.send(error)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:  # noqa: BLE001 - carried to the process that waits, which raises it
        pipe.send(error)


def _answer(network: Network, question: Any) -> object:
    if isinstance(question, np.ndarray) and network.float_network is not None:
        return network.float_network(question)
    if network.ask is None:
        raise ModelError("there is no float network to time")
    return network.ask(question)
