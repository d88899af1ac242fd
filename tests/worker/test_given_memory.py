"""Memory that a guest gives: only what cannot be taken away again, and only under a name that a trusted side gives."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from slalom.errors import SlalomError, WireError
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.message import Bulk, Failure
from slalom.link.serve import DeviceEnd
from tests.devices import NumpyDevice, plan_of
from tests.link.serving import PATIENCE, nothing_left, served
from tests.worker.guests import NETWORK, Guest
from tests.worker.test_serve import BATCH, LAYOUT, REGION


def serve_one(bulk: Bulk, tell: Callable[[Guest], None]) -> tuple[Failure | None, type[SlalomError] | None]:
    """The code and the error of one guest over a socket pair."""
    ours, theirs = socket.socketpair()
    channel, errors = Channel(theirs, 1.0), list[SlalomError]()
    device = NumpyDevice()
    device.load(plan_of(NETWORK))

    def serve() -> None:
        try:
            DeviceEnd(served(device, LAYOUT), channel, bulk, CallAnswering).serve()
        except SlalomError as error:
            errors.append(error)
        channel.close()

    thread = threading.Thread(target=serve, name="slalom-test-servant", daemon=True)
    thread.start()
    ours.settimeout(PATIENCE)
    with ours:
        guest = Guest(ours, bulk, LAYOUT.digest, said=1)
        guest.hear(96)  # the welcome
        tell(guest)
        code = guest.failure()
    thread.join(PATIENCE)
    return code, type(errors[0]) if errors else None


def memory_file(size: int, seals: int) -> int:
    descriptor = os.memfd_create("slalom-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def descriptors() -> dict[str, Callable[[], int | None]]:
    size = LAYOUT.geometry(BATCH, 2).size
    return {
        "none": lambda: None,
        "a file": lambda: os.open(__file__, os.O_RDONLY),
        "a folder": lambda: os.open("/", os.O_RDONLY),
        "zeros": lambda: os.open("/dev/zero", os.O_RDWR),
        "a socket": lambda: socket.socket().detach(),
        "memory that is too small": lambda: memory_file(size - 1, fcntl.F_SEAL_SHRINK),
        "memory that could shrink": lambda: memory_file(size, 0),
        "memory that cannot be written": lambda: memory_file(size, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE),
    }


@pytest.mark.parametrize("name", descriptors())
def test_descriptors_that_are_not_memory_are_told(name: str) -> None:
    def tell(guest: Guest) -> None:
        descriptor = descriptors()[name]()
        guest.say(REGION, LAYOUT.geometry(BATCH, 2).encode(b""), descriptor)
        if descriptor is not None:
            os.close(descriptor)

    with nothing_left():
        assert serve_one(Bulk.MEMFD, tell) == (Failure.MALFORMED, WireError)


@pytest.mark.parametrize(
    "name",
    [b"", b"x", b"..", b"../slalom-x", b"slalom-/x", b"slalom-../../etc/passwd", b"/etc/passwd", b"slalom-\xff",
     b"slalom-\n", b"slalom-not-there", b"slalom-" + b"x" * 57, b"slalom-\0\0x"],
)  # fmt: skip
def test_names_that_no_trusted_side_gives_are_told(name: bytes) -> None:
    with nothing_left():
        told = serve_one(Bulk.SHM, lambda guest: guest.say(REGION, LAYOUT.geometry(BATCH, 2).encode(name)))
        assert told == (Failure.MALFORMED, WireError)


def test_many_descriptors_are_told_and_closed() -> None:
    def tell(guest: Guest) -> None:
        with open(os.devnull) as file:  # noqa: PTH123 - for its number
            raw = replace(REGION, sequence=1).encode() + LAYOUT.geometry(BATCH, 2).encode(b"")
            socket.send_fds(guest.stream, [raw], [file.fileno()] * 30)

    with nothing_left():
        assert serve_one(Bulk.MEMFD, tell) == (Failure.MALFORMED, WireError)
