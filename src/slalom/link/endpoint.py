"""Where a worker is: `spawn`, `unix:PATH` or `tcp:HOST:PORT`; and sockets that go there."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slalom.errors import ApiMisuse, DeviceError

_FORMS = "spawn, cpu, unix:PATH or tcp:HOST:PORT"
_BACKLOG = 16
_PATH_SIZE = 107  # sun_path less its zero
_PROBE_SECONDS = 1.0
_HOST = re.compile(r"[\w.:%-]{1,253}")
_PORT = re.compile(r"[0-9]{1,5}")


class Transport(StrEnum):
    """How a worker is reached."""

    UNIX = "unix"
    TCP = "tcp"


@dataclass(frozen=True)
class Endpoint:
    """An address. `place` is a path for unix, a host for tcp; `port` 0 is any free one, to listen on."""

    transport: Transport
    place: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.place}]" if ":" in self.place else self.place
        return f"unix:{self.place}" if self.transport is Transport.UNIX else f"tcp:{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint in `unix:PATH` or `tcp:HOST:PORT` ([HOST] where it holds colons). Raises ApiMisuse."""
    kind, _, rest = text.partition(":")
    if kind == Transport.UNIX and rest:
        if len(os.fsencode(rest)) > _PATH_SIZE or "\0" in rest:
            raise ApiMisuse(
                f"the socket path {rest!r:.140} is longer than {_PATH_SIZE} bytes", hint="use a shorter one"
            )
        return Endpoint(Transport.UNIX, rest)
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if kind == Transport.TCP and _HOST.fullmatch(host) and _PORT.fullmatch(port) and int(port) < 2**16:
        return Endpoint(Transport.TCP, host, int(port))
    raise ApiMisuse(f"{text!r:.140} is no place of a worker", hint=f"give {_FORMS}")


def same_place(one: Endpoint, other: Endpoint) -> bool:
    """Whether two endpoints are one worker's, as far as names tell: one path, or one port of one address."""
    if one.transport is not other.transport or one.port != other.port:
        return False
    if one.transport is Transport.UNIX:
        return Path(one.place).resolve() == Path(other.place).resolve()
    return not _addresses(one.place).isdisjoint(_addresses(other.place))


def stays_here(endpoint: Endpoint) -> bool:
    """Whether what is sent there crosses no network: a Unix socket, or loopback addresses alone."""
    if endpoint.transport is Transport.UNIX:
        return True
    return all(_is_loopback(address) for address in _addresses(endpoint.place))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:  # a name that nobody knows
        return False


def _addresses(host: str) -> set[str]:
    """All that a name stands for; itself where nobody knows it."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return {host}
    # LOAD-BEARING: a worker that listens everywhere answers at each address that this machine has
    return found | ({"127.0.0.1", "::1"} if any(map(_is_own, found)) else set())


def _is_own(address: str) -> bool:
    """Whether an address leads to this machine: loopback, one that it has, or none in particular."""
    bare = address.partition("%")[0]
    try:
        parsed = ipaddress.ip_address(bare)
        if parsed.is_loopback or parsed.is_unspecified:
            return True
        family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((address, 0))  # only an address of one's own can be had
    except (OSError, ValueError):
        return False
    return True


def dial(endpoint: Endpoint, timeout_seconds: float) -> socket.socket:
    """A connection to a worker. Raises DeviceError naming the endpoint where there is none within the time."""
    try:
        if endpoint.transport is Transport.TCP:
            return socket.create_connection((endpoint.place, endpoint.port), timeout_seconds)
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(timeout_seconds)
            stream.connect(endpoint.place)
        except BaseException:
            stream.close()
            raise
        return stream
    except (OSError, UnicodeError) as error:  # the latter for a host that cannot be one
        raise DeviceError(
            f"no worker at {endpoint}: {getattr(error, 'strerror', None) or 'no answer'}",
            hint=f"start one: slalom worker --plan FILE --listen {endpoint}",
        ) from error


def listen(endpoint: Endpoint) -> socket.socket:
    """A socket that listens there; a unix socket is its owner's alone. Raises DeviceError where it cannot be had."""
    try:
        if endpoint.transport is Transport.TCP:
            family = socket.AF_INET6 if ":" in endpoint.place else socket.AF_INET
            return socket.create_server((endpoint.place, endpoint.port), family=family, backlog=_BACKLOG)
        return _listen_unix(Path(endpoint.place))
    except (OSError, UnicodeError) as error:
        raise DeviceError(
            f"cannot listen on {endpoint}: {getattr(error, 'strerror', None) or 'no such host'}"
        ) from error


def _listen_unix(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _remove_dead(path)
        stream.bind(str(path))
        stream.listen(_BACKLOG)
    except BaseException:
        stream.close()
        raise
    finally:
        os.umask(before)
    return stream


def _remove_dead(path: Path) -> None:
    """Removes the socket that a worker left behind when it was killed; a living one keeps its place."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)  # a worker that lives may be too busy to answer
        try:
            probe.connect(str(path))
        except TimeoutError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
