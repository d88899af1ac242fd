"""The plan, the device, and serving: what a worker does once its files are out of reach."""

from __future__ import annotations

import os
import socket
import sys

from slalom.device.local import LocalDevice
from slalom.errors import ApiMisuse, DeviceError, ModelError, SlalomError
from slalom.isolation.confine import Confinement
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.layout import make_layout
from slalom.link.message import (
    HEADER_SIZE,
    HELLO_SIZE,
    Accelerator,
    Failure,
    Header,
    Hello,
    Kind,
    Welcome,
    decode_header,
    decode_hello,
)
from slalom.link.port import DevicePort, SlotDevice
from slalom.link.queued import QueuedAnswering
from slalom.link.serve import DeviceEnd, Served
from slalom.plan import Plan
from slalom.worker.door import Door
from slalom.worker.options import WorkerOptions

STALL_SECONDS = 60.0  # for one message of a trusted side that has come in


def load_plan(options: WorkerOptions) -> Plan:
    """The plan, from its file or from the descriptor that was handed down. Raises ModelError."""
    if options.plan is not None:
        return Plan.load(options.plan)
    if options.plan_descriptor is None:
        raise ModelError("a worker needs a plan")
    with os.fdopen(options.plan_descriptor, "rb") as file:
        return Plan.read(file)


def make_device(options: WorkerOptions) -> DevicePort:
    """The device that was asked for, or the cheating one, whose products are that device's.

    Raises DeviceError where it cannot be had.
    """
    if options.attack is not None:
        from slalom import attacks

        engine = None
        if options.device == "cuda":
            from slalom.device.accelerated import CudaEngine

            engine = CudaEngine()
        return attacks.make(options.attack, options.attack_seed, options.attack_step, options.threads, engine)
    if options.device == "cpu":
        return LocalDevice(options.threads)
    if options.device == "cuda":
        from slalom.device.slots import CudaSlotDevice

        return CudaSlotDevice()
    raise ApiMisuse(f"unknown device {options.device!r:.60}", hint="choose cpu or cuda")


class Program:
    """A device with its plan loaded. `seal` it, then `serve`."""

    def __init__(self, options: WorkerOptions, plan: Plan) -> None:
        self._options = options
        self._device = make_device(options)
        self._device.load(plan)
        self._layout = make_layout(plan)
        self._accelerator = Accelerator.CUDA if options.device == "cuda" else Accelerator.CPU
        self._streams = isinstance(self._device, SlotDevice) and self._device.streams
        self._served: Served | None = None

    def seal(self, confinement: Confinement) -> None:
        """Gives up, for good, what was needed to load and is not needed to serve."""
        report = confinement.seal()
        threads = self._options.threads or len(os.sched_getaffinity(0))
        welcome = Welcome(self._layout.digest, report.encode(), self._accelerator, threads, self._streams)
        self._served = Served(self._device, self._layout, welcome)
        if self._options.listen is not None:
            sys.stderr.write(f"isolation: {report.summary}\n")

    def serve(self, listener: socket.socket | None) -> None:
        """Serves the one socket that was handed down until it closes, or whoever comes in at the door, for ever."""
        if self._served is None:
            raise DeviceError("a worker serves once it is sealed")
        if listener is None:
            with socket.socket(fileno=self._options.link_descriptor) as stream:
                self._serve_handed_down(self._served, stream)
            return
        _announce(listener)
        for stream, hello in Door(listener, self._layout.digest):
            with stream:
                self._serve_one(self._served, Channel(stream, STALL_SECONDS), hello)

    def _serve_handed_down(self, served: Served, stream: socket.socket) -> None:
        channel = Channel(stream, STALL_SECONDS)
        header = decode_header(channel.receive(HEADER_SIZE, None))
        if header != Header(Kind.HELLO, 0, size=HELLO_SIZE):
            channel.send([Header(Kind.FAILURE, 0, step=Failure.MALFORMED).encode()])
            return
        hello = decode_hello(channel.receive_rest(HELLO_SIZE))
        if hello.digest != self._layout.digest:
            channel.send([Header(Kind.FAILURE, 0, step=Failure.PLAN).encode()])
            return
        self._serve_one(served, channel, hello)

    def _serve_one(self, served: Served, channel: Channel, hello: Hello) -> None:
        try:
            answering = QueuedAnswering if isinstance(served.device, SlotDevice) else CallAnswering
            DeviceEnd(served, channel, hello.bulk, answering).serve()
        except SlalomError as error:
            sys.stderr.write(f"slalom: {error}\n")
        finally:
            channel.close()


def _announce(listener: socket.socket) -> None:
    """One line on stdout: the endpoint, with the port that a 0 became."""
    if listener.family == socket.AF_UNIX:
        sys.stdout.write(f"unix:{listener.getsockname()}\n")
    else:
        host, port = listener.getsockname()[:2]
        sys.stdout.write(f"tcp:[{host}]:{port}\n" if ":" in host else f"tcp:{host}:{port}\n")
    sys.stdout.flush()
