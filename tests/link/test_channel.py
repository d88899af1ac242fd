"""Whole messages over a socket: every wait has an end, and nothing that came along is kept or lost."""

from __future__ import annotations

import array
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from slalom.errors import DeviceError, WireError
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.message import Bulk
from tests.link.serving import PATIENCE, connected, wait_until

SHORT = 0.2
Ends = tuple[Channel, socket.socket]


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=[Bulk.MEMFD, Bulk.INLINE], ids=["unix", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ours, theirs = connected(request.param)
    channel = Channel(ours, SHORT)
    yield channel, theirs
    channel.close()
    theirs.close()


@pytest.fixture
def unix() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, PATIENCE)
    yield channel, theirs
    channel.close()
    theirs.close()


def hand_over(stream: socket.socket, data: bytes, given: Sequence[int]) -> None:
    stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))])


def test_parts_arrive_as_one_message(ends: Ends) -> None:
    channel, theirs = ends
    channel.send([b"one", memoryview(array.array("I", [2, 3])), b"", b"four"])
    assert theirs.recv(100) == b"one\2\0\0\0\3\0\0\0four"


def test_a_message_in_pieces_is_put_together(ends: Ends) -> None:
    channel, theirs = ends
    buffer = bytearray(6)
    pieces = threading.Thread(target=lambda: [theirs.sendall(piece) for piece in (b"a", b"bcd", b"ef")])
    pieces.start()
    channel.receive_into(memoryview(buffer), PATIENCE)
    pieces.join()
    assert buffer == b"abcdef"
    assert channel.receive(0, SHORT) == b""


def test_a_large_message_goes_through(unix: Ends) -> None:
    channel, theirs = unix
    data = os.urandom(8 * 2**20)
    other = Channel(theirs, PATIENCE)
    thread = threading.Thread(target=channel.send, args=([data[:1], data[1:]],))
    thread.start()
    assert other.receive(len(data), PATIENCE) == data
    thread.join()


def test_silence_is_a_missing_device(ends: Ends) -> None:
    channel, _ = ends
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer within 0\.2 seconds"):
        channel.receive(4, SHORT)
    assert time.monotonic() - begin >= SHORT


def test_a_message_that_stops_half_way_is_a_wire_error(ends: Ends) -> None:
    channel, theirs = ends
    theirs.sendall(b"abc")
    with pytest.raises(WireError, match="stopped half-way"):
        channel.receive(4, None)


def test_a_dribble_is_bounded_in_all_and_not_by_the_byte(ends: Ends) -> None:
    channel, theirs = ends
    stopped = threading.Event()

    def dribble() -> None:
        while not stopped.wait(SHORT / 10):
            theirs.sendall(b"x")

    thread = threading.Thread(target=dribble)
    thread.start()
    begin = time.monotonic()
    try:
        with pytest.raises(WireError, match="stopped half-way"):
            channel.receive(10_000, PATIENCE)
    finally:
        stopped.set()
        thread.join()
    assert time.monotonic() - begin < 100 * SHORT  # byte by byte it would be 10000 times as long


def test_a_reader_that_reads_nothing_is_given_up(ends: Ends) -> None:
    channel, _ = ends
    with pytest.raises(DeviceError, match=r"took no data for 0\.2 seconds"):
        channel.send([bytes(64 * 2**20)])


@pytest.mark.parametrize("sent", [b"", b"ab"])
def test_the_end_of_a_connection_is_told(ends: Ends, sent: bytes) -> None:
    channel, theirs = ends
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(ChannelClosedError):
        channel.receive(4, None)
    with pytest.raises(ChannelClosedError):
        for _ in range(100):
            channel.send([bytes(1000)])


@pytest.mark.parametrize("turn", range(20))
def test_hanging_up_wakes_a_thread_that_reads(ends: Ends, turn: int) -> None:
    channel, _ = ends
    found: list[BaseException] = []
    begun = threading.Event()

    def read() -> None:
        begun.set()
        try:
            channel.receive(4, None)
        except BaseException as error:  # noqa: BLE001 - looked at below
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()
    if turn % 2:
        time.sleep(0.001)  # so that it waits for certain
    channel.hang_up()
    thread.join(PATIENCE)
    assert [type(error) for error in found] == [ChannelClosedError]


def test_hanging_up_keeps_the_number(unix: Ends) -> None:
    channel, _ = unix
    number = channel._stream.fileno()
    channel.hang_up()
    with socket.socket() as another:
        assert another.fileno() != number
    channel.close()
    channel.close()
    for use in (lambda: channel.receive(1, None), lambda: channel.send([b"x"])):
        with pytest.raises(ChannelClosedError):
            use()


def test_a_descriptor_comes_along(unix: Ends) -> None:
    channel, theirs = unix
    with open(os.devnull) as file:  # noqa: PTH123 - for its number
        hand_over(theirs, b"x", [file.fileno()])
        assert channel.receive(1, PATIENCE) == b"x"
        taken = channel.take_descriptor()
        assert os.path.sameopenfile(taken, file.fileno())
        assert not os.get_inheritable(taken)
        os.close(taken)
    with pytest.raises(WireError, match="did not come"):
        channel.take_descriptor()


@pytest.mark.parametrize(("limit", "given"), [(0, 1), (0, 2), (0, 100), (1, 2), (1, 3), (1, 100)])
def test_more_descriptors_than_may_come_are_refused_and_closed(limit: int, given: int) -> None:
    before = descriptors()
    ours, theirs = socket.socketpair()
    channel = Channel(ours, PATIENCE, descriptors=limit)
    with theirs, open(os.devnull) as file:  # noqa: PTH123 - for its number
        hand_over(theirs, b"abcd", [file.fileno()] * given)
        with pytest.raises(WireError, match="more descriptors came"):
            channel.receive(4, PATIENCE)
    channel.close()
    assert wait_until(lambda: descriptors() == before)


def test_one_descriptor_after_another_is_one_too_many(unix: Ends) -> None:
    channel, theirs = unix
    before = descriptors()
    with open(os.devnull) as file:  # noqa: PTH123 - for its number
        for _, data in zip(range(2), itertools.repeat(b"ab"), strict=False):
            hand_over(theirs, data, [file.fileno()])
        with pytest.raises(WireError, match="more descriptors came"):
            channel.receive(4, PATIENCE)
    channel.close()
    assert descriptors() == before - 1  # its own


def test_a_descriptor_that_nobody_takes_is_closed(unix: Ends) -> None:
    channel, theirs = unix
    before = descriptors()
    with open(os.devnull) as file:  # noqa: PTH123 - for its number
        hand_over(theirs, b"x", [file.fileno()])
    channel.receive(1, PATIENCE)
    assert descriptors() == before + 1
    channel.close()
    assert descriptors() == before - 1


def test_a_descriptor_is_sent_once_with_a_large_message(unix: Ends) -> None:
    channel, theirs = unix
    other = Channel(theirs, PATIENCE)
    with open(os.devnull) as file:  # noqa: PTH123 - for its number
        thread = threading.Thread(target=channel.send, args=([bytes(2**20)], file.fileno()))
        thread.start()
        other.receive(2**20, PATIENCE)
        thread.join()
    os.close(other.take_descriptor())
    with pytest.raises(WireError, match="did not come"):
        other.take_descriptor()
