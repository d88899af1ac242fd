"""Devices served over a link by a thread of the test's own process, and a count of what such a link may not leave."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slalom.errors import SlalomError
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.layout import Layout, make_layout
from slalom.link.message import (
    HEADER_SIZE,
    HELLO_SIZE,
    SHM_FOLDER,
    SHM_PREFIX,
    Accelerator,
    Bulk,
    Welcome,
    decode_header,
    decode_hello,
)
from slalom.link.port import DevicePort
from slalom.link.remote import LinkOptions, RemoteDevice
from slalom.link.serve import Answering, DeviceEnd, Mouth, Served
from slalom.plan import Plan

PATIENCE = 20.0  # for what must happen, and does at once on a machine that is not overloaded
MakeChannel = Callable[[socket.socket], Channel]


def connected(bulk: Bulk) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection: of TCP where nothing is shared, else of a socket pair."""
    if bulk is not Bulk.INLINE:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


@dataclass(eq=False)
class Servant:
    """A thread that takes a hello and serves a device. `errors` holds what ended it, if not the other side."""

    device: DevicePort
    stream: socket.socket
    make_channel: MakeChannel = lambda stream: Channel(stream, PATIENCE)
    answering: Callable[[Served, Mouth], Answering] = CallAnswering
    errors: list[BaseException] = field(default_factory=list)
    accelerator: Accelerator = Accelerator.CPU
    streams: bool = False

    def start(self, plan: Plan) -> None:
        """Serves a plan from now on."""
        threading.Thread(target=self._run, args=(plan,), name="slalom-test-servant", daemon=True).start()

    def _run(self, plan: Plan) -> None:
        channel = self.make_channel(self.stream)
        try:
            decode_header(channel.receive(HEADER_SIZE, PATIENCE))
            hello = decode_hello(channel.receive_rest(HELLO_SIZE))
            self.device.load(plan)
            place = served(self.device, make_layout(plan), self.accelerator, self.streams)
            DeviceEnd(place, channel, hello.bulk, self.answering).serve()
        except (SlalomError, OSError) as error:
            self.errors.append(error)
        finally:
            channel.close()


def served(
    device: DevicePort, layout: Layout, accelerator: Accelerator = Accelerator.CPU, streams: bool = False
) -> Served:
    """A device with its layout and a modest welcome."""
    return Served(device, layout, Welcome(layout.digest, 0, accelerator, 1, streams))


def reach(servant_of: Callable[[socket.socket], Servant], options: LinkOptions) -> RemoteDevice:
    """A device at the other end of a link; the servant begins when a plan is loaded."""

    def dial(plan: Plan) -> socket.socket:
        ours, theirs = connected(options.bulk)
        servant_of(theirs).start(plan)
        return ours

    return RemoteDevice(dial, options)


@contextlib.contextmanager
def running(
    device: DevicePort, path: Path, plan: Plan, make_channel: MakeChannel | None = None
) -> Iterator[list[Servant]]:
    """A worker behind a unix socket, in a thread; gives those whom it served, one for each connection."""
    served: list[Servant] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = listener.accept()
                served.append(Servant(device, stream, make_channel or (lambda it: Channel(it, PATIENCE))))
                served[-1].start(plan)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield served
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def options_of(bulk: Bulk, timeout_seconds: float = PATIENCE, micro_batches: int = 2) -> LinkOptions:
    """Options whose every wait is bounded by one number."""
    return LinkOptions(bulk, micro_batches, timeout_seconds, start_seconds=timeout_seconds)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether a condition comes true in time."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() > begin + seconds:
            return False
        if time.monotonic() > begin + 0.01:  # an error and the frames it came through are a cycle
            gc.collect()
        time.sleep(0.002)
    return True


def census() -> Counter[str]:
    """How many threads, descriptors, mappings and names a link could have left in this process."""
    found: Counter[str] = Counter()
    found["threads"] = sum(thread.name.startswith("slalom-") for thread in threading.enumerate())
    found["descriptors"] = len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text()
    found["mappings"] = maps.count("slalom-link") + maps.count(SHM_PREFIX + "0")
    found["names"] = len(list(SHM_FOLDER.glob(f"{SHM_PREFIX}*")))
    return found


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Asserts that after the block there are no more threads, descriptors, mappings and names than before."""
    before = census()
    yield
    assert wait_until(lambda: census() <= before), (before, census())
