"""Where workers are: what is an endpoint and what is none, and sockets that are taken over or left alone."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from slalom.errors import ApiMisuse, DeviceError
from slalom.link.endpoint import Endpoint, Transport, dial, listen, parse_endpoint
from tests.link.serving import PATIENCE, nothing_left


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/slalom.sock", Endpoint(Transport.UNIX, "/run/slalom.sock")),
        ("unix:a:b", Endpoint(Transport.UNIX, "a:b")),
        ("unix:" + "x" * 107, Endpoint(Transport.UNIX, "x" * 107)),
        ("tcp:localhost:0", Endpoint(Transport.TCP, "localhost", 0)),
        ("tcp:127.0.0.1:65535", Endpoint(Transport.TCP, "127.0.0.1", 65535)),
        ("tcp:[::1]:7000", Endpoint(Transport.TCP, "::1", 7000)),
        ("tcp:::1:7000", Endpoint(Transport.TCP, "::1", 7000)),
        ("tcp:[fe80::1%eth0]:1", Endpoint(Transport.TCP, "fe80::1%eth0", 1)),
        ("tcp:my-host.example:9", Endpoint(Transport.TCP, "my-host.example", 9)),
    ],
)
def test_places_are_read_and_written(text: str, expected: Endpoint) -> None:
    found = parse_endpoint(text)
    assert found == expected
    assert parse_endpoint(str(found)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "spawn", "unix", "unix:", "tcp", "tcp:", "tcp:host", "tcp::1", "tcp:host:", "tcp:host:-1", "tcp:host:65536",
     "tcp:host:1e3", "tcp:host: 1", "tcp:host:１", "tcp:host:" + "9" * 5000, "tcp:[::1:7", "tcp:::1]:7", "tcp:[]:7",
     "tcp:a b:7", "tcp:a/b:7", "tcp:a\0b:7", "tcp:a\nb:7", "tcp:" + "a" * 254 + ":7", "http://host:1", "UNIX:/x",
     "unix:" + "x" * 108, "unix:" + "é" * 54, "unix:/a\0b"],
)  # fmt: skip
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(ApiMisuse) as caught:
        parse_endpoint(text)
    assert len(str(caught.value)) < 300
    assert caught.value.hint


@pytest.mark.parametrize("place", ["tcp:127.0.0.1:0", "unix"])
def test_who_listens_is_reached(place: str, tmp_path: Path) -> None:
    endpoint = parse_endpoint(place if place != "unix" else f"unix:{tmp_path}/s")
    with nothing_left(), listen(endpoint) as listener:
        if endpoint.transport is Transport.TCP:
            endpoint = Endpoint(Transport.TCP, endpoint.place, listener.getsockname()[1])
        else:
            assert stat.S_IMODE(Path(endpoint.place).stat().st_mode) == 0o600
        with dial(endpoint, PATIENCE) as ours:
            theirs, _ = listener.accept()
            with theirs:
                ours.sendall(b"x")
                assert theirs.recv(1) == b"x"


def test_ipv6_is_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 in this Python")
    try:
        listener = listen(parse_endpoint("tcp:[::1]:0"))
    except DeviceError:
        pytest.skip("no IPv6 on this machine")
    with listener, dial(Endpoint(Transport.TCP, "::1", listener.getsockname()[1]), PATIENCE):
        pass


@pytest.mark.parametrize("text", ["unix:/nowhere/at/all", "tcp:127.0.0.1:1", "tcp:a..b:7", "tcp:.:7"])
def test_nobody_there_is_a_device_error_that_names_the_place(text: str) -> None:
    with nothing_left(), pytest.raises(DeviceError, match="no worker at") as caught:
        dial(parse_endpoint(text), 1.0)
    assert text in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["unix:/nowhere/at/all", "tcp:192.0.2.1:7", "tcp:a..b:7"])
def test_places_that_cannot_be_had_are_refused(text: str) -> None:
    with nothing_left(), pytest.raises(DeviceError, match="cannot listen on"):
        listen(parse_endpoint(text))


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    endpoint = parse_endpoint(f"unix:{tmp_path}/s")
    listen(endpoint).close()
    assert Path(endpoint.place).is_socket()
    with listen(endpoint) as listener, dial(endpoint, PATIENCE):
        listener.accept()[0].close()


@pytest.mark.parametrize("waiting", [0, 40])
def test_the_socket_of_a_living_worker_is_not_stolen(tmp_path: Path, waiting: int) -> None:
    """Not even of one that is too busy to take another connection."""
    endpoint = parse_endpoint(f"unix:{tmp_path}/s")
    guests = []
    with nothing_left(), listen(endpoint) as living:
        for _ in range(waiting):
            guest = socket.socket(socket.AF_UNIX)
            guest.setblocking(False)
            guest.connect_ex(endpoint.place)
            guests.append(guest)
        with pytest.raises(DeviceError, match="cannot listen on"):
            listen(endpoint)
        if not waiting:
            living.accept()[0].close()  # the one that looked whether somebody lives there
            with dial(endpoint, PATIENCE) as ours:
                ours.sendall(b"x")
                theirs, _ = living.accept()
                with theirs:
                    assert theirs.recv(1) == b"x"
        for guest in guests:
            guest.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(DeviceError, match="cannot listen on"):
        listen(parse_endpoint(f"unix:{path}"))
    assert path.read_text() == "mine"
