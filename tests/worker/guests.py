"""A worker in a thread, and guests that come to its door: right ones, and raw sockets that say anything."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field, replace

from slalom.errors import SlalomError
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.endpoint import Endpoint, Transport, dial
from slalom.link.layout import make_layout
from slalom.link.message import (
    HEADER_SIZE,
    HELLO_SIZE,
    REGION_SIZE,
    WELCOME_SIZE,
    Bulk,
    Failure,
    Header,
    Hello,
    Kind,
    decode_header,
)
from slalom.link.port import DevicePort
from slalom.link.region import make_region
from slalom.link.remote import LinkOptions, RemoteDevice
from slalom.link.serve import DeviceEnd
from slalom.plan import Plan
from slalom.session import Session
from slalom.worker.door import Door
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.link.serving import PATIENCE, served

NETWORK = "residual"
HELLO = Header(Kind.HELLO, 0, size=HELLO_SIZE)


@dataclass(eq=False)
class Worker:
    """Serves guests at a TCP port of this machine, as the worker program does. `errors` are what guests caused."""

    device: DevicePort = field(default_factory=NumpyDevice)
    plan: Plan = field(default_factory=lambda: plan_of(NETWORK))
    errors: list[SlalomError] = field(default_factory=list)
    crash: BaseException | None = None

    def __post_init__(self) -> None:
        self.device.load(self.plan)
        self.layout = make_layout(self.plan)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint(Transport.TCP, "127.0.0.1", self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for stream, hello in Door(self.listener, self.layout.digest):
                channel = Channel(stream, 1.0)
                try:
                    DeviceEnd(served(self.device, self.layout), channel, hello.bulk, CallAnswering).serve()
                except SlalomError as error:
                    self.errors.append(error)
                finally:
                    channel.close()
        except BaseException as error:  # noqa: BLE001 - a test looks at it
            self.crash = error

    def session(self, protection: str = "private") -> Session:
        """A right guest's session."""
        options = LinkOptions(Bulk.INLINE, 2, PATIENCE, PATIENCE)
        device = RemoteDevice(lambda _: dial(self.endpoint, PATIENCE), options)
        return Session(self.plan, protection=protection, device=device, threads=1)

    def serves(self) -> bool:
        """Whether a right guest is served right, and nothing has crashed. The one before may be on its way out."""
        images, expected = case_of(NETWORK, 3)
        for _ in range(200):
            try:
                with self.session() as session:
                    return same(session.run(images), expected) and self.crash is None and self.thread.is_alive()
            except SlalomError as error:
                if "serves somebody else" not in str(error):
                    raise
                threading.Event().wait(0.01)
        return False

    def knock(self) -> socket.socket:
        """A connection that has said nothing."""
        stream = dial(self.endpoint, PATIENCE)
        stream.settimeout(PATIENCE)
        return stream


@dataclass(eq=False)
class Guest:
    """A trusted side that may say anything, once it is in."""

    stream: socket.socket
    bulk: Bulk
    digest: bytes
    said: int = 0

    def say(self, header: Header, body: bytes = b"", descriptor: int | None = None) -> None:
        """Sends a message with the next number."""
        raw = replace(header, sequence=self.said).encode() + body
        self.said += 1
        if descriptor is None:
            self.stream.sendall(raw)
        else:
            socket.send_fds(self.stream, [raw], [descriptor])

    def hear(self, size: int = HEADER_SIZE) -> bytes:
        """So many bytes, or fewer where the worker has gone."""
        heard = b""
        while len(heard) < size:
            try:
                piece = self.stream.recv(size - len(heard))
            except ConnectionResetError:
                break
            if not piece:
                break
            heard += piece
        return heard

    def failure(self) -> Failure | None:
        """The code that the worker sends next, past any answers without a body, before it goes; None where it goes."""
        while raw := self.hear():
            header = decode_header(raw)
            if header.kind is Kind.FAILURE:
                return Failure(header.step)
            if self.bulk is Bulk.INLINE:
                self.hear(header.size)
        return None

    def come_in(self) -> Guest:
        """Says a right hello, and hears the welcome."""
        self.say(HELLO, Hello(self.digest, self.bulk).encode())
        assert decode_header(self.hear()).kind is Kind.WELCOME
        self.hear(WELCOME_SIZE)
        return self

    def map_memory(self, batch: int) -> Guest:
        """Gives right memory for a batch, and hears that it is ready."""
        geometry = make_layout(plan_of(NETWORK)).geometry(batch, 2)
        made = make_region(self.bulk, geometry)
        header = Header(Kind.REGION, 0, batch=batch, size=REGION_SIZE)
        self.say(header, geometry.encode(made.name), made.descriptor)
        made.forget()
        assert decode_header(self.hear()).kind is Kind.READY
        return self


def guest_of(worker: Worker) -> Guest:
    """One at the door of a worker."""
    return Guest(worker.knock(), Bulk.INLINE, worker.layout.digest)
