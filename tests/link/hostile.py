"""A device end that speaks the protocol until the moment it is told to lie at, and then does what the lie does.

Everything but the lie is the product's own serving code, so that a lie is refused for what it is and nothing else.
"""

from __future__ import annotations

import array
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.message import Header, Kind, decode_header
from tests.link.serving import PATIENCE

_HEADER = struct.Struct("<4sHHQQIIIIQ")
_FIELDS = ("magic", "version", "kind", "sequence", "request", "step", "slot", "batch", "element", "size")
ANSWERS = frozenset({Kind.CLAIM, Kind.OUTPUT})


@dataclass(frozen=True)
class Said:
    """A message as an honest device would send it."""

    header: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        """All of it."""
        return self.header + self.body


Act = Callable[["Hostile", Said], None]


@dataclass(frozen=True)
class Lie:
    """What to do in place of sending the message of these kinds whose number, from 0, among them is `place`."""

    kinds: frozenset[Kind]
    act: Act
    place: int = 0


@dataclass(eq=False)
class Script:
    """A lie, and whether it was told."""

    lie: Lie
    met: int = 0
    told: bool = False
    held: list[Said] = field(default_factory=list)  # what an act keeps back

    def takes(self, header: Header) -> bool:
        """Whether this is the message to lie at."""
        if header.kind not in self.lie.kinds:
            return False
        self.met += 1
        return self.met == self.lie.place + 1


class Hostile(Channel):
    """A channel that sends what its script says."""

    def __init__(self, stream: socket.socket, script: Script) -> None:
        super().__init__(stream, PATIENCE)
        self.script = script

    def send(self, parts: Sequence[bytes | memoryview], descriptor: int | None = None) -> None:
        said = Said(bytes(parts[0]), b"".join(bytes(part) for part in parts[1:]))
        if self.script.takes(decode_header(said.header)):
            self.script.told = True
            self.script.lie.act(self, said)
            return
        if self.script.held:  # an answer that was kept back goes out after the next
            said = Said(said.whole, self.script.held.pop().whole)
        super().send([said.whole], descriptor)

    def say(self, raw: bytes) -> None:
        """Sends bytes as they are."""
        super().send([raw])

    def hang_up(self) -> None:
        """Ends the connection and serves no more."""
        super().hang_up()
        raise ChannelClosedError("the lie was to go")

    def close(self) -> None:
        try:
            super().close()
        except ChannelClosedError:
            self._stream.close()

    def rest_until_alone(self) -> None:
        """Waits until the other side has gone, reading what it still says."""
        try:
            while True:
                self.receive(1, PATIENCE)
        except ChannelClosedError:
            return


# ---------------------------------------------------------------- things to do


def with_field(said: bytes, name: str, change: Callable[[int], int | bytes]) -> bytes:
    """A header in which one field is changed, in any way that has room."""
    fields = dict(zip(_FIELDS, _HEADER.unpack(said), strict=True))
    fields[name] = change(fields[name])
    return _HEADER.pack(*fields.values())


def field_lie(name: str, change: Callable[[int], int | bytes]) -> Act:
    """Sends the message with one field of its header changed."""
    return lambda channel, said: channel.say(with_field(said.header, name, change) + said.body)


def send(make: Callable[[Said], bytes]) -> Act:
    """Sends something else in place of the message."""
    return lambda channel, said: channel.say(make(said))


def send_and_go(make: Callable[[Said], bytes]) -> Act:
    """Sends something else, and ends the connection."""

    def act(channel: Hostile, said: Said) -> None:
        raw = make(said)
        if raw:
            channel.say(raw)
        channel.hang_up()

    return act


def send_and_rest(make: Callable[[Said], bytes]) -> Act:
    """Sends something else, and then nothing, for as long as the other side is there."""

    def act(channel: Hostile, said: Said) -> None:
        raw = make(said)
        if raw:
            channel.say(raw)
        channel.rest_until_alone()
        channel.hang_up()

    return act


def dribble(make: Callable[[Said], bytes], seconds: float = 0.05) -> Act:
    """Sends byte after byte, slowly, for ever."""

    def act(channel: Hostile, said: Said) -> None:
        raw = make(said)
        for place in range(100_000):
            channel.say(raw[place % len(raw) :][:1])
            time.sleep(seconds)

    return act


def hold(channel: Hostile, said: Said) -> None:
    """Keeps the message back until after the next."""
    channel.script.held.append(said)


def with_descriptors(count: int) -> Act:
    """Sends the message with open descriptors along."""

    def act(channel: Hostile, said: Said) -> None:
        with socket.socket() as one:
            rights = array.array("i", [one.fileno()] * count)
            channel._stream.sendmsg([said.whole], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    return act


def failure(code: int) -> Act:
    """Sends a FAILURE with this code."""
    return send(lambda said: Header(Kind.FAILURE, decode_header(said.header).sequence, step=code).encode())


def extra(kind: Kind) -> Act:
    """Sends an empty message of a kind that nobody asked for, and then what was asked for."""

    def act(channel: Hostile, said: Said) -> None:
        channel.say(Header(kind, decode_header(said.header).sequence).encode() + said.whole)

    return act
