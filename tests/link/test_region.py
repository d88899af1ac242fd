"""Shared memory: what lies where, who can take it away, and what is left of it."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slalom.errors import DeviceError, WireError
from slalom.link import memory
from slalom.link import region as regions
from slalom.link.channel import Channel
from slalom.link.message import NAME_SIZE, SHM_FOLDER, SHM_PREFIX, Bulk, Geometry
from slalom.link.region import MadeRegion, Region, Slots, make_region, map_region, page_ceiling
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach

GEOMETRY = Geometry(ask_count=2, claim_count=3, ask_size=4096, claim_size=8192)


@pytest.fixture(params=Bulk, ids=lambda bulk: bulk.name.lower())
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Bulk, MadeRegion]]:
    yield request.param, make_region(request.param, GEOMETRY)


def test_slots_lie_one_after_another_and_are_zeros(made: tuple[Bulk, MadeRegion]) -> None:
    _, region = made
    whole = region.region.whole
    assert whole.size == GEOMETRY.size == 2 * 4096 + 3 * 8192
    assert not whole.any()
    for slot in range(2):
        region.region.ask(slot, (1024,), np.int32).fill(slot + 1)
    for slot in range(3):
        region.region.claim(slot, (2048,), np.int32).fill(slot + 3)
    words = whole.view(np.int32)
    assert np.array_equal(words, np.repeat([1, 2, 3, 4, 5], [1024, 1024, 2048, 2048, 2048]))
    region.forget()


def test_views_outside_are_refused(made: tuple[Bulk, MadeRegion]) -> None:
    _, region = made
    place = region.region
    for slot in (-1, 2, 2**32 - 1):
        with pytest.raises(WireError, match="outside"):
            place.ask(slot, (1,), np.int32)
    for slot in (-1, 3, 2**32 - 1):
        with pytest.raises(WireError, match="outside"):
            place.claim(slot, (1,), np.int32)
    for shape in ((1025,), (2**32 - 1, 4, 4), (2**62, 2**62)):
        with pytest.raises(WireError, match="outside"):
            place.ask(0, shape, np.int32)
    region.forget()


def test_asks_are_known_by_where_they_begin(made: tuple[Bulk, MadeRegion]) -> None:
    _, region = made
    place = region.region
    for slot in range(2):
        assert place.ask_slot_of(place.ask(slot, (7,), np.int16)) == slot
    assert place.ask_slot_of(place.ask(0, (7,), np.int16)[1:]) is None
    assert place.ask_slot_of(place.claim(0, (7,), np.int16)) is None
    assert place.ask_slot_of(np.zeros(7, np.int16)) is None
    region.forget()


def test_the_memory_goes_with_the_last_view() -> None:
    with nothing_left():
        made = make_region(Bulk.MEMFD, GEOMETRY)
        view = made.region.claim(0, (4,), np.int32)
        made.forget()
        del made
        gc.collect()
        view.fill(1)  # still there
        del view


@pytest.mark.parametrize("size", [0, 4096, GEOMETRY.size - 1, GEOMETRY.size + 1, 2**30])
def test_a_peer_can_neither_shrink_nor_grow_a_memory_file(size: int) -> None:
    made = make_region(Bulk.MEMFD, GEOMETRY)
    ours, theirs = socket.socketpair()
    assert made.descriptor is not None
    Channel(ours, PATIENCE).send([b"x"], made.descriptor)
    peer = Channel(theirs, PATIENCE)
    peer.receive(1, PATIENCE)
    taken = peer.take_descriptor()
    with pytest.raises(PermissionError) as caught:
        os.ftruncate(taken, size)
    assert caught.value.errno == errno.EPERM
    with pytest.raises(PermissionError):
        os.posix_fallocate(taken, GEOMETRY.size, size + 1)
    with pytest.raises(PermissionError):
        fcntl.fcntl(taken, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    os.close(taken)
    made.forget()
    ours.close()
    peer.close()


def test_a_file_of_shm_is_its_owner_s_alone_and_its_name_is_gone() -> None:
    with nothing_left():
        made = make_region(Bulk.SHM, GEOMETRY)
        assert made.path is not None
        assert made.path.parent == SHM_FOLDER
        found = made.path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_size == GEOMETRY.size
        assert found.st_blocks * 512 >= GEOMETRY.size  # all its memory, from the start
        other = map_region(GEOMETRY, Bulk.SHM, made.name, None)
        other.claim(1, (4,), np.int32).fill(9)
        made.forget()
        made.forget()
        assert made.region.claim(1, (4,), np.int32).tolist() == [9] * 4
        assert not list(SHM_FOLDER.glob(made.path.name))
        del other, made


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("MemTotal:       24000000 kB\nMemFree:         1000 kB\nMemAvailable:   12345678 kB\n", 12345678 * 1024),
        ("MemTotal:       24000000 kB\n", None),
        ("MemAvailable: much\n", None),
        ("MemAvailable:\n", None),
        ("", None),
    ],
)
def test_free_memory_is_what_the_kernel_says(
    text: str, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(regions, "_MEMORY_FACTS", tmp_path / "meminfo")
    assert regions.free_bytes() == free
    monkeypatch.setattr(regions, "_MEMORY_FACTS", tmp_path / "nothing")
    assert regions.free_bytes() is None


@pytest.mark.parametrize("bulk", Bulk, ids=lambda bulk: bulk.name.lower())
def test_a_link_that_does_not_fit_is_refused_before_anything_crosses(
    bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Asked(NumpyDevice):
        def compute(self, *given: object) -> object:
            asked.append(given)
            raise AssertionError

    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    device = reach(lambda stream: Servant(Asked(), stream), options_of(bulk))
    with Session(plan_of("residual"), protection="private", device=device, threads=1) as session:
        with pytest.raises(DeviceError, match=r"^the link needs 0\.\d GB .* micro-batches of 500 images, and 0\.0 GB"):
            session.run(case_of("residual", 1000)[0])
        assert not asked


@pytest.mark.parametrize("bulk", Bulk, ids=lambda bulk: bulk.name.lower())
def test_memory_that_cannot_be_had_is_a_device_error(bulk: Bulk) -> None:
    with nothing_left(), pytest.raises(DeviceError, match="bytes of memory for the link"):
        make_region(bulk, Geometry(1, 1, 2**61, 2**61))


@pytest.mark.parametrize(
    "name",
    [b"", b"slalom", b"other-file", b"slalom-/../../etc/passwd", b"../slalom-x", b"slalom-a/b", b"slalom-\n",
     b"slalom-\xff\xfe", b"slalom-" + b"x" * NAME_SIZE, b"slalom-that-is-not-there", b"slalom-\0x", b"/slalom-x"],
)  # fmt: skip
def test_odd_names_are_refused(name: bytes) -> None:
    with nothing_left(), pytest.raises(WireError):
        map_region(GEOMETRY, Bulk.SHM, name, None)


def test_a_link_in_shm_is_not_followed() -> None:
    path = SHM_FOLDER / f"{SHM_PREFIX}link-{os.getpid()}"
    path.symlink_to("/dev/zero")
    try:
        with pytest.raises(WireError):
            map_region(GEOMETRY, Bulk.SHM, path.name.encode(), None)
    finally:
        path.unlink()


def memory_file(size: int, seals: int) -> int:
    descriptor = os.memfd_create("slalom-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def strange_descriptors() -> dict[str, int]:
    read, write = os.pipe()
    os.close(write)
    return {
        "a pipe": read,
        "a folder": os.open("/", os.O_RDONLY),
        "zeros": os.open("/dev/zero", os.O_RDWR),
        "a file": os.open(__file__, os.O_RDONLY),
        "too small": memory_file(GEOMETRY.size - 1, fcntl.F_SEAL_SHRINK),
        "not sealed": memory_file(GEOMETRY.size, 0),
        "sealed against growing alone": memory_file(GEOMETRY.size, fcntl.F_SEAL_GROW),
        "sealed against writing": memory_file(GEOMETRY.size, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE),
    }


def test_descriptors_that_are_no_sealed_memory_are_refused_and_closed() -> None:
    with nothing_left():
        for name, descriptor in strange_descriptors().items():
            with pytest.raises(WireError):
                pytest.fail(f"{name} was mapped: {map_region(GEOMETRY, Bulk.MEMFD, b'', descriptor)}")


def test_a_region_of_its_own_that_has_no_room_is_refused() -> None:
    with pytest.raises(WireError, match="cannot be mapped"):
        map_region(Geometry(1, 1, 2**46, 2**46), Bulk.INLINE, b"", None)


# ---------------------------------------------------------------- which slots are free


def test_slots_are_given_once() -> None:
    slots = Slots(3)
    assert sorted(slots.lease(PATIENCE) for _ in range(3)) == [0, 1, 2]
    assert slots.lease_if_free() is None
    with pytest.raises(DeviceError, match="no slot became free"):
        slots.lease(0.01)
    slots.release(1)
    assert slots.lease(PATIENCE) == 1


def test_a_slot_is_free_when_the_last_view_dies() -> None:
    slots = Slots(1)
    region = Region(mmap.mmap(-1, GEOMETRY.size), GEOMETRY)
    array = region.claim(slots.lease(PATIENCE), (8, 2), np.int32)
    slots.release_with(array, 0)
    rows = array.reshape(-1)[3:9:2]
    del array
    gc.collect()
    assert slots.lease_if_free() is None
    del rows
    gc.collect()
    assert slots.lease_if_free() == 0


@pytest.mark.parametrize(("size", "pages"), [(0, 1), (1, 1), (4096, 1), (4097, 2), (2**40, 2**40 // mmap.PAGESIZE)])
def test_sizes_are_whole_pages(size: int, pages: int) -> None:
    assert page_ceiling(size) == pages * mmap.PAGESIZE
