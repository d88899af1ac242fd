"""A dealer makes mask images from seeds: it is told nothing else, cannot make a wrong answer pass, and is never the
device."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slalom.arithmetic.keystream import SEED_SIZE
from slalom.errors import ApiMisuse, IntegrityError, MaskError
from slalom.link.channel import Channel
from slalom.link.endpoint import parse_endpoint, same_place
from slalom.plan.steps import Linear
from slalom.session import Session
from slalom.trusted.bank import MaskBankOptions, WhenEmpty
from slalom.trusted.randomness import Randomness
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.link.serving import PATIENCE, Servant, running, wait_until

NAME = "residual"
GOOD, EXPECTED = case_of(NAME, 4)
EVERYTHING = 10**9


class Dealing(NumpyDevice):
    """Writes down the words that it expanded, item by item, and lies when told."""

    def __init__(self, *, lies: bool = False) -> None:
        self.words: list[bytes] = []
        self.lies = lies
        self.dies = False

    def compute(self, step_names: Any, words: Any) -> Any:
        if self.dies:
            raise RuntimeError("gone")
        self.words.extend(words[item].tobytes() for item in range(len(words)))
        return super().compute(step_names, words)

    def linear(self, step: Linear, words: NDArray[Any]) -> NDArray[Any]:
        claim = np.array(super().linear(step, words))
        if self.lies:
            claim.reshape(-1)[-1] += 1
        return claim


class Shown(NumpyDevice):
    """A device that writes down the words it is shown."""

    def __init__(self) -> None:
        self.words: list[bytes] = []

    def compute(self, step_names: Any, words: Any) -> Any:
        self.words.extend(words[item].tobytes() for item in range(len(words)))
        return super().compute(step_names, words)


class Tapped(Channel):
    """A worker's end of a link that keeps what it reads."""

    def __init__(self, stream: socket.socket, heard: bytearray) -> None:
        super().__init__(stream, PATIENCE)
        self._heard = heard

    def receive_into(self, target: memoryview, patience_seconds: float | None) -> None:
        super().receive_into(target, patience_seconds)
        self._heard += target.cast("B")


@contextmanager
def dealt_by(
    dealer: NumpyDevice, path: Path, device: NumpyDevice | None = None, **more: Any
) -> Iterator[tuple[Session, list[Servant]]]:
    """A session whose masks a dealer makes, with whom that dealer served."""
    with running(dealer, path, plan_of(NAME)) as served:
        arguments = {"protection": "private", "threads": 1, "isolation": "off", **more}
        with Session(plan_of(NAME), device=device or NumpyDevice(), dealer=f"unix:{path}", **arguments) as session:
            yield session, served


@pytest.mark.parametrize("bulk", ["memfd", "inline"])
@pytest.mark.parametrize("protection", ["private", "blinded"])
def test_the_same_bits_and_no_image_is_made_here(protection: str, bulk: str, tmp_path: Path) -> None:
    dealer = Dealing()
    with dealt_by(dealer, tmp_path / "d", protection=protection, bulk=bulk) as (session, _):
        for images in (4, 3):
            session.prepare_masks(images)
            assert same(session.run(GOOD[:images]), [output[:images] for output in EXPECTED])
        report = session.report
        assert len(session.dealers) == 1
    plan = plan_of(NAME)
    images = sum(4 * int(np.prod(step.output.shape)) for step in plan.graph.steps if isinstance(step, Linear))
    assert report.bytes_from_dealer == 7 * images
    assert dealer.words and report.bytes_to_dealer % SEED_SIZE == 0


@pytest.mark.parametrize("spilled", [False, True])
def test_a_bank_that_a_dealer_fills(spilled: bool, tmp_path: Path) -> None:
    """Spilled masks are opened with the words of the same seed."""
    folder = tmp_path / "spill"
    folder.mkdir()
    options = MaskBankOptions(
        request=4, target=8, low=8, memory=1 if spilled else EVERYTHING, spill=folder if spilled else None,
        when_empty=WhenEmpty.WAIT,
    )  # fmt: skip
    with dealt_by(Dealing(), tmp_path / "d", mask_bank=options) as (session, _):
        for _ in range(3):
            assert same(session.run(GOOD), EXPECTED)
        assert session.report.bytes_from_dealer > 0


def test_it_is_told_seeds_and_nothing_else(tmp_path: Path) -> None:
    """Over a stream that carries everything: a seed for each value, and not one word of a mask or of an input."""
    heard = bytearray()
    path, dealer, device = tmp_path / "d", Dealing(), Shown()
    with (
        running(dealer, path, plan_of(NAME), lambda stream: Tapped(stream, heard)),
        Session(
            plan_of(NAME), device=device, dealer=f"unix:{path}", bulk="inline", threads=1, isolation="off"
        ) as session,
    ):
        session.prepare_masks(4)
        session.run(GOOD)
        seeds = session.report.bytes_to_dealer
    assert seeds > 0 and len(heard) < 400 + 8 * seeds
    for words in (*dealer.words, *device.words, GOOD[0].astype(np.float32).tobytes()):
        assert words[:16] not in heard


def test_the_device_is_told_no_seed_and_sees_no_mask(tmp_path: Path) -> None:
    """What it sees is uniform; with what the dealer knows it would be the input: that is what they must not share."""
    dealer, device = Dealing(), Shown()
    with dealt_by(dealer, tmp_path / "d", device) as (session, _):
        session.prepare_masks(4)
        session.run(GOOD)
    assert not set(device.words) & set(dealer.words)
    masks = {len(words): np.frombuffer(words, np.int32) for words in dealer.words[:1]}
    first = np.frombuffer(device.words[0], np.int32) - next(iter(masks.values()))
    assert np.abs(first).max() < 2**15, "the two together know the first activation"


@pytest.mark.parametrize("bank", [False, True])
def test_a_dealer_that_lies_is_refused(bank: bool, tmp_path: Path) -> None:
    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.WAIT)
    more: dict[str, Any] = {"mask_bank": options} if bank else {}
    with dealt_by(Dealing(lies=True), tmp_path / "d", **more) as (session, _):
        session.prepare_masks(4)
        with pytest.raises(IntegrityError, match="failed its check; a dealer made its mask images") as caught:
            session.run(GOOD)
        assert caught.value.hint and "device or the dealer" in caught.value.hint
        with pytest.raises(ApiMisuse, match="over"):
            session.run(GOOD)


def test_blinded_checks_no_dealer_either(tmp_path: Path) -> None:
    """As a lying device there: SECURITY.md says so. And so the test above sees the check, and nothing else."""
    with dealt_by(Dealing(lies=True), tmp_path / "d", protection="blinded") as (session, _):
        session.prepare_masks(4)
        assert not same(session.run(GOOD), EXPECTED)


def test_after_a_lie_the_next_worker_has_no_dealer(tmp_path: Path) -> None:
    """Nobody can tell who lied. The worker that takes the place of the first makes its masks inside."""
    dealer = Dealing(lies=True)
    with running(dealer, tmp_path / "d", plan_of(NAME)) as served:
        options: dict[str, Any] = {"threads": 1, "worker_threads": 1, "isolation": "off", "on_failure": "retry"}
        with Session(plan_of(NAME), dealer=f"unix:{tmp_path / 'd'}", **options) as session:
            session.prepare_masks(4)
            assert same(session.run(GOOD), EXPECTED)
            (incident,) = session.report.incidents
            assert incident.error == "IntegrityError"
            session.prepare_masks(4)
            assert same(session.run(GOOD), EXPECTED)
            assert session.dealers == ()
        assert len(served) == 1


def test_a_dealer_that_fails_is_named_and_no_worker_is_blamed(tmp_path: Path) -> None:
    dealer = Dealing()
    with dealt_by(dealer, tmp_path / "d") as (session, _):
        session.prepare_masks(4)
        dealer.dies = True
        with pytest.raises(MaskError, match="the dealer failed: ") as caught:
            session.prepare_masks(4)
        assert caught.value.hint
        assert same(session.run(GOOD), EXPECTED), "masks that were dealt before are as good as any"
        assert same(session.run(GOOD), EXPECTED), "and a request without makes its own"
        assert session.report.incidents == ()


@pytest.mark.parametrize("when_empty", WhenEmpty)
def test_a_bank_whose_dealer_fails(when_empty: WhenEmpty, tmp_path: Path) -> None:
    """Whoever waits is told; a request that may make its own masks goes on."""
    dealer = Dealing()
    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=when_empty)
    with dealt_by(dealer, tmp_path / "d", mask_bank=options) as (session, _):
        assert wait_until(lambda: session.report.masks.ready_images == 4)
        dealer.dies = True
        assert same(session.run(GOOD), EXPECTED)
        if when_empty is WhenEmpty.COMPUTE:
            assert same(session.run(GOOD), EXPECTED)
        else:
            with pytest.raises(MaskError, match="the dealer failed" if when_empty is WhenEmpty.WAIT else "no masks"):
                session.run(GOOD)


def test_a_dealer_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    released = threading.Event()

    class Silent(Dealing):
        def compute(self, step_names: Any, words: Any) -> Any:
            released.wait(PATIENCE)
            return super().compute(step_names, words)

    options = MaskBankOptions(request=4, target=4, low=4, memory=EVERYTHING, when_empty=WhenEmpty.COMPUTE)
    begin = time.monotonic()
    with dealt_by(Silent(), tmp_path / "d", mask_bank=options, timeout_seconds=600) as (session, _):
        assert same(session.run(GOOD), EXPECTED)
        session.close()
        assert time.monotonic() - begin < PATIENCE
        released.set()


def test_a_dealer_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=f"no worker at unix:{tmp_path / 'nobody'}"):
        Session(plan_of(NAME), device=NumpyDevice(), dealer=f"unix:{tmp_path / 'nobody'}", threads=1)


def test_dealt_masks_never_repeat(tmp_path: Path) -> None:
    """The same image again and again, with masks that are prepared, dropped by smaller requests, and made inside."""
    dealer, device = Dealing(), Shown()
    one = np.repeat(GOOD[:1], 4, axis=0)
    with dealt_by(dealer, tmp_path / "d", device) as (session, _):
        for count in (4, 1, 3, 2, 4, 1):
            session.prepare_masks(4)
            session.run(one[:count])
            session.run(one[:count])
    assert max(Counter(device.words).values()) == 1
    assert max(Counter(dealer.words).values()) == 1


def test_the_count_sees_seeds_that_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with streams that come back: what is asserted above fails."""
    monkeypatch.setattr(Randomness, "draw_stream", lambda self: 7)
    dealer = Dealing()
    with dealt_by(dealer, tmp_path / "d") as (session, _):
        session.prepare_masks(1)
        session.prepare_masks(1)
    assert max(Counter(dealer.words).values()) > 1


# ---------------------------------------------------------------- never the device


@pytest.mark.parametrize(
    ("device", "dealer"),
    [
        ("tcp:127.0.0.1:7001", "tcp:127.0.0.1:7001"),
        ("tcp:localhost:7001", "tcp:127.0.0.1:7001"),
        ("tcp:[::1]:7001", "tcp:localhost:7001"),
        ("tcp:127.0.0.2:7001", "tcp:127.0.0.1:7001"),
        ("tcp:0.0.0.0:7001", "tcp:127.0.0.1:7001"),
        ("tcp:[::]:7001", "tcp:127.0.0.1:7001"),
        ("unix:/tmp/a", "unix:/tmp/a"),
        ("unix:/tmp/./a", "unix:/tmp/b/../a"),
    ],
)
def test_the_device_as_its_own_dealer_is_refused(device: str, dealer: str) -> None:
    with pytest.raises(ApiMisuse, match="dealer and device are both at") as caught:
        Session(plan_of(NAME), device=device, dealer=dealer, threads=1)
    assert caught.value.hint


def test_an_address_of_this_machine_is_this_machine() -> None:
    """A worker that listens everywhere is behind it and behind loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = asked.getsockname()[0]
    with pytest.raises(ApiMisuse, match="dealer and device are both at"):
        Session(plan_of(NAME), device=f"tcp:{own}:7001", dealer="tcp:127.0.0.1:7001", threads=1)


def test_a_link_to_the_devices_socket_is_the_devices_socket(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "device")
    with pytest.raises(ApiMisuse, match="dealer and device are both at"):
        Session(plan_of(NAME), device=f"unix:{tmp_path / 'device'}", dealer=f"unix:{tmp_path / 'link'}", threads=1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:127.0.0.1:7001", "tcp:127.0.0.1:7002"),
        ("tcp:192.0.2.1:7001", "tcp:192.0.2.2:7001"),
        ("unix:/tmp/a", "unix:/tmp/b"),
        ("unix:/tmp/a", "tcp:127.0.0.1:7001"),
    ],
)
def test_other_places_are_others(one: str, other: str) -> None:
    assert not same_place(parse_endpoint(one), parse_endpoint(other))


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        ({"dealer": "spawn", "protection": "verified"}, "a dealer is for levels with masks"),
        ({"dealer": "spawn", "protection": "enclave"}, "a dealer is for levels with masks"),
        ({"dealer": "cpu"}, "a dealer is a worker of its own"),
        ({"dealer": "tcp:192.0.2.1:7001"}, "would go to tcp:192.0.2.1:7001 in clear"),
        ({"dealer": "tcp:0.0.0.0:7001"}, "in clear"),
        ({"dealer": "tcp:no-such-host.invalid:7001"}, "in clear"),
        ({"dealer": "nowhere"}, "no place of a worker"),
        ({"dealer": "unix:/tmp/a", "device": ["unix:/tmp/b", "unix:/tmp/c"]}, "deals for one device alone"),
    ],
)
def test_dealers_that_make_no_sense(more: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ApiMisuse, match=pattern):
        Session(plan_of(NAME), **{"device": NumpyDevice(), "threads": 1, **more})
