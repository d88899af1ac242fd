"""Which workers a session may use: each place once, a fresh process as often as one is needed, and no liar twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from slalom.errors import ApiMisuse
from slalom.fleet.spawned import SpawnedDevice
from slalom.link.endpoint import Endpoint, Transport, dial, parse_endpoint, same_place, stays_here
from slalom.link.message import Bulk
from slalom.link.port import DevicePort
from slalom.link.remote import LinkOptions, RemoteDevice
from slalom.worker.options import WorkerOptions

SPAWN = "spawn"
IN_PROCESS = "cpu"
AUTO = "auto"


class Source(Protocol):
    """Where a device comes from."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def fresh(self) -> bool:
        """Whether it gives another worker each time."""

    def open(self) -> DevicePort:
        """A device that has not loaded a plan."""


@dataclass(frozen=True)
class SpawnSource:
    """Starts a confined worker process each time."""

    worker: WorkerOptions
    options: LinkOptions
    name: str = SPAWN
    fresh: bool = True

    def open(self) -> RemoteDevice:
        """A device whose `load` starts the process."""
        return SpawnedDevice(self.worker, self.options)


@dataclass(frozen=True)
class EndpointSource:
    """Reaches one running worker."""

    endpoint: Endpoint
    options: LinkOptions
    fresh: bool = False

    @property
    def name(self) -> str:
        """The endpoint."""
        return str(self.endpoint)

    def open(self) -> RemoteDevice:
        """A device whose `load` connects."""
        return RemoteDevice(lambda _: dial(self.endpoint, self.options.timeout_seconds), self.options)


@dataclass(frozen=True)
class ObjectSource:
    """A device in this process: a simulation of the boundary."""

    make: Callable[[], DevicePort]
    name: str = IN_PROCESS
    fresh: bool = False

    def open(self) -> DevicePort:
        """The device."""
        return self.make()


@dataclass(frozen=True)
class LinkChoice:
    """How workers are reached and started: `bulk` auto, memfd, shm or inline; `threads` of the trusted side."""

    bulk: str
    micro_batches: int
    timeout_seconds: float
    worker: WorkerOptions
    threads: int = 1


def make_source(place: str, choice: LinkChoice) -> Source:
    """The source in `spawn`, `unix:PATH` or `tcp:HOST:PORT`. Raises ApiMisuse for another, or a bulk it cannot have."""
    if place == SPAWN:
        return SpawnSource(choice.worker, _options(choice, Transport.UNIX))
    endpoint = parse_endpoint(place)
    return EndpointSource(endpoint, _options(choice, endpoint.transport))


def make_dealer_source(place: str, choice: LinkChoice) -> SpawnSource | EndpointSource:
    """The source of a dealer, whose answers come in their slots. Raises ApiMisuse for what is no worker of its own."""
    if place == SPAWN:
        return SpawnSource(choice.worker, replace(_options(choice, Transport.UNIX), streams=False))
    endpoint = parse_endpoint(place)
    if not stays_here(endpoint):
        # LOAD-BEARING: the link is not encrypted, and who reads seeds and blinded words has the input
        raise ApiMisuse(
            f"the seeds of masks would go to {endpoint} in clear",
            hint="reach the dealer through a tunnel: tcp:127.0.0.1:PORT",
        )
    return EndpointSource(endpoint, replace(_options(choice, endpoint.transport), streams=False))


def require_another(dealer: SpawnSource | EndpointSource, devices: Sequence[Source]) -> None:
    """Raises ApiMisuse where a dealer is one of the devices, or one running worker is to deal for several of them."""
    if isinstance(dealer, SpawnSource):
        return
    for source in devices:
        if isinstance(source, EndpointSource) and same_place(dealer.endpoint, source.endpoint):
            # LOAD-BEARING: who knows the masks and sees what they hide knows the input
            raise ApiMisuse(
                f"dealer and device are both at {source.endpoint}: one worker that has both would know every input",
                hint="a dealer is another worker, of somebody who does not collude with the device's",
            )
    if len(devices) > 1:
        raise ApiMisuse("a running dealer deals for one device alone", hint="name one device, or a dealer of spawn")


def _options(choice: LinkChoice, transport: Transport) -> LinkOptions:
    bulk = _bulk(choice.bulk, transport)
    return LinkOptions(bulk, choice.micro_batches, choice.timeout_seconds, threads=choice.threads)


def _bulk(word: str, transport: Transport) -> Bulk:
    """How arrays cross. A descriptor travels over a unix socket alone, a name wherever both sides share a /dev/shm."""
    if word == AUTO:
        sealable = transport is Transport.UNIX and hasattr(os, "memfd_create")
        return Bulk.MEMFD if sealable else Bulk.INLINE
    choices = [kind.name.lower() for kind in Bulk]
    if word not in choices:
        raise ApiMisuse(f"unknown bulk {word!r:.40}", hint=f"choose one of {', '.join([AUTO, *choices])}")
    bulk = Bulk[word.upper()]
    if bulk is Bulk.MEMFD and transport is Transport.TCP:
        raise ApiMisuse("a memory file cannot be sent over tcp", hint="--bulk shm on one host, inline between two")
    if bulk is Bulk.SHM and transport is Transport.UNIX:
        raise ApiMisuse("a worker behind a unix socket is given a memory file, and no name", hint="--bulk memfd")
    return bulk
