"""Who waits is told: answers in order, the first error for everybody, and an end that leaves nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from slalom.errors import ApiMisuse, DeviceError, SlalomError, WireError
from slalom.link.answers import NOT_ASKED, Answers, refusal
from slalom.link.channel import Channel
from slalom.link.conversation import Arrivals, Conversation, Message
from slalom.link.message import HEADER_SIZE, Bulk, Failure, Header, Kind, decode_header
from slalom.link.remote import RemoteDevice
from tests.devices import NumpyDevice, case_of, plan_of
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach

PING = Message(Header(Kind.PING, 0))
PONG = Header(Kind.PONG, 0)


@pytest.fixture
def ends() -> Iterator[tuple[Conversation, Channel]]:
    with nothing_left():
        ours, theirs = socket.socketpair()
        conversation, peer = Conversation(ours, PATIENCE), Channel(theirs, PATIENCE)
        yield conversation, peer
        conversation.end(DeviceError("the test is over"))
        conversation.end(DeviceError("the test is over again"))
        peer.close()


def test_messages_are_numbered_and_answers_come_in_order(ends: tuple[Conversation, Channel]) -> None:
    conversation, peer = ends
    arrivals: Arrivals[int] = Arrivals()
    for place in range(5):
        conversation.ask(PING, [arrivals.expected(PONG, None, place)])
        assert decode_header(peer.receive(HEADER_SIZE, PATIENCE)) == Header(Kind.PING, place)
    for place in range(5):
        peer.send([Header(Kind.PONG, place).encode()])
    assert [arrivals.take(PATIENCE) for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_body_lands_where_it_was_expected(ends: tuple[Conversation, Channel]) -> None:
    conversation, peer = ends
    answer = Header(Kind.WELCOME, 0, size=4)
    body = bytearray(4)
    arrivals: Arrivals[None] = Arrivals()
    conversation.ask(PING, [arrivals.expected(answer, memoryview(body), None)])
    peer.send([answer.encode(), b"body"])
    arrivals.take(PATIENCE)
    assert body == b"body"


def test_everybody_who_waits_is_told_the_first_error(ends: tuple[Conversation, Channel]) -> None:
    conversation, peer = ends
    arrivals: Arrivals[int] = Arrivals()
    conversation.ask(PING, [arrivals.expected(PONG, None, place) for place in range(3)])
    peer.send([Header(Kind.READY, 0).encode()])
    for _ in range(3):
        with pytest.raises(WireError, match=NOT_ASKED):
            arrivals.take(PATIENCE)
    peer.close()
    for _ in range(2):
        with pytest.raises(WireError, match=NOT_ASKED):
            conversation.ask(PING, [])


def test_what_was_said_before_the_end_is_told_to_who_could_not_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader has not come to it yet when the next message finds the connection closed."""
    take_next = Answers._take_next

    def late(self: Answers) -> bool:
        time.sleep(0.1)
        return take_next(self)

    monkeypatch.setattr(Answers, "_take_next", late)
    ours, theirs = socket.socketpair()
    conversation, peer = Conversation(ours, PATIENCE), Channel(theirs, PATIENCE)
    peer.send([Header(Kind.FAILURE, 0, step=Failure.MALFORMED).encode()])
    peer.close()
    with pytest.raises(DeviceError, match="did not understand"):
        conversation.ask(PING, [])
    conversation.end(DeviceError("the test is over"))


def test_silence_is_bounded(ends: tuple[Conversation, Channel]) -> None:
    conversation, _ = ends
    with pytest.raises(DeviceError, match=r"did not answer within 0\.05 seconds"):
        conversation.call(PING, PONG, patience_seconds=0.05)


def test_a_number_without_room_ends_nothing_by_itself(ends: tuple[Conversation, Channel]) -> None:
    conversation, _ = ends
    with pytest.raises(WireError, match="does not fit"):
        conversation.ask(Message(Header(Kind.PING, 0, size=2**64)), [])


@pytest.mark.parametrize("code", list(Failure))
def test_each_failure_has_its_words(code: Failure) -> None:
    error = refusal(Header(Kind.FAILURE, 9, step=code).encode())
    assert isinstance(error, DeviceError)
    assert str(error).startswith("the worker ")


@pytest.mark.parametrize("kind", list(Kind))
def test_all_else_has_one_text(kind: Kind) -> None:
    error = refusal(Header(kind, 0).encode())
    assert type(error) is WireError
    assert str(error) == NOT_ASKED


@pytest.mark.parametrize(("place", "value"), [(6, 0), (7, 1), (36, 99)])
def test_what_cannot_be_read_has_the_same_text(place: int, value: int) -> None:
    raw = bytearray(Header(Kind.PONG, 0).encode())
    raw[place] = value
    assert str(refusal(bytes(raw))) == NOT_ASKED


# ---------------------------------------------------------------- the trusted end


def remote(bulk: Bulk = Bulk.MEMFD) -> RemoteDevice:
    return reach(lambda stream: Servant(NumpyDevice(), stream), options_of(bulk))


@pytest.mark.parametrize("bulk", Bulk, ids=lambda bulk: bulk.name.lower())
def test_a_device_over_a_link_says_what_it_says_without_one(bulk: Bulk) -> None:
    plan, direct = plan_of("residual"), NumpyDevice()
    direct.load(plan)
    activation = (case_of("residual", 3)[0].transpose(0, 2, 3, 1) * 100).astype("int16").copy()
    with nothing_left():
        device = remote(bulk)
        device.load(plan)
        outputs = [output.copy() for output in device.run(activation)]
        claims = [(claim.step, claim.words.copy()) for claim in device.run_ahead(activation)]
        computed = device.compute(["conv1"], activation.astype("int32"))[0].copy()
        assert device.ping() > 0
        device.close()
        device.close()
    assert all((a == b).all() for a, b in zip(outputs, direct.run(activation), strict=True))
    expected = list(direct.run_ahead(activation))
    assert [step for step, _ in claims] == [claim.step for claim in expected]
    assert (computed == expected[0].words).all()
    for (_, words), claim in zip(claims, expected, strict=True):
        low = claim.words.reshape(3, -1, 1).view("uint8")[..., :3]
        assert (words == (low if words.dtype == "uint8" else claim.words)).all()


@pytest.mark.parametrize("use", ["ping", "run"])
def test_a_link_that_is_not_open_or_closed_is_not_used(use: str) -> None:
    device = remote()
    arguments = [case_of("residual", 1)[0].transpose(0, 2, 3, 1).astype("int16").copy()] if use == "run" else []
    with pytest.raises(ApiMisuse, match="the link has no plan"):
        getattr(device, use)(*arguments)
    with nothing_left():
        device.load(plan_of("residual"))
        device.close()
    with pytest.raises(SlalomError):
        getattr(device, use)(*arguments)
