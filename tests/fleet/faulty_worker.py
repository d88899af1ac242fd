"""A worker without torch that goes wrong in one way, at one linear step, the n-th time that it answers it.

    python -m tests.fleet.faulty_worker DESCRIPTOR GRAPH FAULT STEP TIMES

It serves `tests.devices.NumpyDevice` on an inherited socket, in a third of a second.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

from slalom.isolation.report import IsolationReport
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.layout import make_layout
from slalom.link.message import (
    HEADER_SIZE,
    HELLO_SIZE,
    Accelerator,
    Errand,
    Header,
    Kind,
    Welcome,
    decode_header,
    decode_hello,
)
from slalom.link.serve import DeviceEnd, Mouth, Served
from tests.devices import NumpyDevice, plan_of

LATE_SECONDS = 3.0


class Faulty(CallAnswering):
    """Answers honestly but for one answer."""

    def __init__(self, served: Served, mouth: Mouth, fault: str, step: str, times: int) -> None:
        super().__init__(served, mouth)
        self._fault = fault
        self._position = served.layout.positions[step]
        self._left = times

    def _give(self, asked: Header, kind: Kind, errand: Errand, words: np.ndarray) -> None:
        here = kind is Kind.OUTPUT or errand.step == self._position
        self._left -= here
        if not here or self._left != 0:
            super()._give(asked, kind, errand, words)
            return
        given: Any = getattr(self, f"_{self._fault}")(words)
        for answer in given:
            super()._give(asked, kind, errand, answer)

    def _dies(self, words: np.ndarray) -> list[np.ndarray]:
        os._exit(9)

    def _is_killed(self, words: np.ndarray) -> list[np.ndarray]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    def _stops(self, words: np.ndarray) -> list[np.ndarray]:
        os.kill(os.getpid(), signal.SIGSTOP)
        return [words]

    def _hangs(self, words: np.ndarray) -> list[np.ndarray]:
        time.sleep(3600)
        return [words]

    def _answers_late(self, words: np.ndarray) -> list[np.ndarray]:
        time.sleep(LATE_SECONDS)
        return [words]

    def _answers_twice(self, words: np.ndarray) -> list[np.ndarray]:
        return [words, words]

    def _sends_garbage(self, words: np.ndarray) -> list[np.ndarray]:
        self._mouth._channel.send([os.urandom(HEADER_SIZE)])
        return [words]

    def _stops_half_way(self, words: np.ndarray) -> list[np.ndarray]:
        self._mouth._channel.send([Header(Kind.CLAIM, 1).encode()[:20]])
        time.sleep(3600)
        return []

    def _hangs_up(self, words: np.ndarray) -> list[np.ndarray]:
        self._mouth._channel.close()
        os._exit(0)

    def _lies(self, words: np.ndarray) -> list[np.ndarray]:
        lie = np.array(words)
        lie.reshape(-1)[0] += 1
        return [lie]

    def _raises(self, words: np.ndarray) -> list[np.ndarray]:
        raise RuntimeError("a fault")


FAULTS = tuple(
    name.removeprefix("_")
    for name in (
        "_dies", "_is_killed", "_stops", "_hangs", "_answers_late", "_answers_twice", "_sends_garbage",
        "_stops_half_way", "_hangs_up", "_lies", "_raises",
    )
)  # fmt: skip


def main(descriptor: int, graph: str, fault: str, step: str, times: int) -> None:
    """Serves until the other side goes."""
    plan, device = plan_of(graph), NumpyDevice()
    device.load(plan)
    layout = make_layout(plan)
    channel = Channel(socket.socket(fileno=descriptor), 30.0)
    decode_header(channel.receive(HEADER_SIZE, None))
    hello = decode_hello(channel.receive_rest(HELLO_SIZE))
    welcome = Welcome(layout.digest, IsolationReport().encode(), Accelerator.CPU, 1)
    answering = CallAnswering if fault == "none" else lambda served, mouth: Faulty(served, mouth, fault, step, times)
    DeviceEnd(Served(device, layout, welcome), channel, hello.bulk, answering).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
