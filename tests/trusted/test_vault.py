"""What was sealed outside opens once, as it was, and in no other case."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slalom.arithmetic.dispatch import make_dispatch
from slalom.errors import ApiMisuse, MaskError, PrivacyError
from slalom.isolation.secret import SecretMemory
from slalom.trusted.randomness import PlainMemory
from slalom.trusted.vault import Vault
from slalom.trusted.vault import make_vault as fresh_vault

DIGEST = bytes(range(32))
SIZES = (1, 5, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16 + 7)  # words: around a chunk and several


def words_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**31), 2**31, (1, count), dtype=np.int32)


def make_vault(folder: Path, name: str = "masks") -> Vault:
    return Vault(folder / name, DIGEST, PlainMemory)


@pytest.mark.parametrize("memory", [PlainMemory, SecretMemory])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_sealed_opens_once(memory: Any, threads: int, tmp_path: Path) -> None:
    dispatch, vault = make_dispatch(threads=threads), Vault(tmp_path / "masks", DIGEST, memory)
    arrays = [words_of(count, count) for count in SIZES]
    records = [vault.seal(array, b"mask", dispatch.run_ranges) for array in arrays]
    assert (tmp_path / "masks").stat().st_size == vault.sealed_bytes == sum(record.sealed_size for record in records)
    for record, array in reversed(list(zip(records, arrays, strict=True))):
        np.testing.assert_array_equal(vault.open(record, dispatch.run_ranges), array)
        with pytest.raises(PrivacyError, match="used once"):
            vault.open(record)
    vault.destroy()
    dispatch.close()
    assert not (tmp_path / "masks").exists()


def test_nothing_of_an_array_can_be_read_outside(tmp_path: Path) -> None:
    vault, array = make_vault(tmp_path), words_of(2**16 + 3)
    vault.seal(array, b"mask")
    vault.seal(array, b"mask")
    sealed = (tmp_path / "masks").read_bytes()
    part = len(sealed) // 2
    assert sealed[:part] != sealed[part:], "one array sealed twice looks the same"
    assert array.tobytes()[:16] not in sealed
    bits = np.unpackbits(np.frombuffer(sealed, np.uint8))
    assert abs(float(bits.mean()) - 0.5) < 0.005


@pytest.mark.parametrize("place", [0, 17, 2**18 - 1, 2**18 + 3, -1])
def test_a_changed_bit_is_refused_and_the_mask_is_gone(place: int, tmp_path: Path) -> None:
    vault, array = make_vault(tmp_path), words_of(2**16 + 5)
    record = vault.seal(array, b"mask")
    change(tmp_path / "masks", place)
    with pytest.raises(MaskError, match="not what was sealed: it is gone"):
        vault.open(record)
    change(tmp_path / "masks", place)  # and back
    with pytest.raises(PrivacyError, match="used once"):
        vault.open(record)


def test_a_file_that_was_cut_off_is_refused_and_the_mask_is_gone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    record = vault.seal(words_of(2**16 + 5), b"mask")
    whole = (tmp_path / "masks").read_bytes()
    os.truncate(tmp_path / "masks", len(whole) - 1)
    with pytest.raises(MaskError, match="cut off: it is gone"):
        vault.open(record)
    (tmp_path / "masks").write_bytes(whole)
    with pytest.raises(PrivacyError, match="used once"):
        vault.open(record)


def test_swapped_masks_are_refused(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    first, second = vault.seal(words_of(100, 1), b"mask"), vault.seal(words_of(100, 2), b"mask")
    sealed = (tmp_path / "masks").read_bytes()
    (tmp_path / "masks").write_bytes(sealed[first.sealed_size :] + sealed[: first.sealed_size])
    for record in (first, second):
        with pytest.raises(MaskError, match="not what was sealed"):
            vault.open(record)


def test_chunks_of_one_mask_that_were_swapped_are_refused(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    record = vault.seal(words_of(2**17), b"mask")
    sealed, chunk = (tmp_path / "masks").read_bytes(), 2**18 + 16
    (tmp_path / "masks").write_bytes(sealed[chunk:] + sealed[:chunk])
    with pytest.raises(MaskError, match="not what was sealed"):
        vault.open(record)


def test_what_lay_there_before_is_refused(tmp_path: Path) -> None:
    """A file rolled back to an earlier day: at the same place, of the same size, from the same vault."""
    vault = make_vault(tmp_path)
    first = vault.seal(words_of(100, 1), b"mask")
    earlier = (tmp_path / "masks").read_bytes()
    vault.open(first)
    second = vault.seal(words_of(100, 2), b"mask")
    assert (second.offset, second.sealed_size) == (first.offset, first.sealed_size), "the place is used again"
    (tmp_path / "masks").write_bytes(earlier)
    with pytest.raises(MaskError, match="not what was sealed"):
        vault.open(second)


def test_what_another_session_sealed_is_refused(tmp_path: Path) -> None:
    """A restart has another key: numbers and places are the same again, and nothing of before opens."""
    before = make_vault(tmp_path, "before")
    before.seal(words_of(100, 1), b"mask")
    after = make_vault(tmp_path, "after")
    record = after.seal(words_of(100, 1), b"mask")
    (tmp_path / "after").write_bytes((tmp_path / "before").read_bytes())
    with pytest.raises(MaskError, match="not what was sealed"):
        after.open(record)


@pytest.mark.parametrize("other", ["digest", "label", "size"])
def test_what_a_mask_belongs_to_is_sealed_with_it(other: str, tmp_path: Path) -> None:
    """The plan, the mask's name, and how large the array is."""
    vault = make_vault(tmp_path)
    record = vault.seal(words_of(100), b"mask")
    if other == "digest":
        vault._digest = bytes(32)
    else:
        record = replace(record, label=b"another") if other == "label" else replace(record, shape=(1, 99))
    with pytest.raises(MaskError, match="not what was sealed"):
        vault.open(record)


def test_a_number_never_seals_twice_under_eight_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from slalom.trusted import vault as module

    seen: list[bytes] = []
    real = module.AESGCM

    class Watched:
        def __init__(self, key: memoryview) -> None:
            self._cipher = real(key)

        def encrypt_into(self, nonce: bytes, *rest: object) -> int:
            seen.append(nonce)
            return self._cipher.encrypt_into(nonce, *rest)  # type: ignore[arg-type]

        def decrypt_into(self, *rest: object) -> int:
            return self._cipher.decrypt_into(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "AESGCM", Watched)
    vault = make_vault(tmp_path)

    def work() -> None:
        for seed in range(20):
            array = words_of(2**16 + 9, seed)
            assert np.array_equal(vault.open(vault.seal(array, b"mask")), array)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 8 * 20 * 2


def test_eight_threads_open_a_record_once(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    for _ in range(20):
        record, outcomes, barrier = vault.seal(words_of(9), b"mask"), [], threading.Barrier(8)

        def take(record: Any = record, barrier: Any = barrier, outcomes: Any = outcomes) -> None:
            barrier.wait()
            try:
                vault.open(record)
                outcomes.append(True)
            except PrivacyError:
                outcomes.append(False)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False] * 7 + [True]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_nothing_and_removes_nothing(tmp_path: Path) -> None:
    vault, array = make_vault(tmp_path), words_of(100)
    record = vault.seal(array, b"mask")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for use in (lambda: vault.open(record), lambda: vault.seal(array, b"mask")):
                try:
                    use()
                except PrivacyError:
                    continue
                os._exit(2)
            vault.destroy()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "masks").exists()
    np.testing.assert_array_equal(vault.open(record), array)


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("mine")
    with pytest.raises(ApiMisuse, match="is there already"):
        make_vault(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ApiMisuse, match="is there already"):
        make_vault(tmp_path, "link")
    with pytest.raises(ApiMisuse, match="cannot make"):
        make_vault(tmp_path / "no folder")
    assert (tmp_path / "masks").read_text() == "mine"


def test_a_full_disk_is_told_and_seals_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vault = make_vault(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MaskError, match=r"cannot be spilled to .*: No space left on device"):
        vault.seal(words_of(10), b"mask")
    monkeypatch.undo()
    record = vault.seal(words_of(10), b"mask")
    assert record.number == 1, "the number of a failed seal is gone"
    vault.destroy()


def test_after_the_end_nothing_opens(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    record = vault.seal(words_of(10), b"mask")
    vault.destroy()
    vault.destroy()
    for use in (lambda: vault.open(record), lambda: vault.seal(words_of(10), b"mask")):
        with pytest.raises(PrivacyError, match="destroyed"):
            use()


def change(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place] ^= 4
    path.write_bytes(whole)


_DIES = """
import os, signal, sys
from pathlib import Path
import numpy as np
from slalom.trusted.randomness import PlainMemory
from slalom.trusted.vault import make_vault
vault = make_vault(Path(sys.argv[1]), bytes(32), PlainMemory)
vault.seal(np.arange(1000, dtype=np.int32), b"label")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    """The file is as large as the bank was: in a memory file system it would be memory that nobody gets back."""
    living = fresh_vault(tmp_path, DIGEST, PlainMemory)
    record = living.seal(words_of(100), b"label")
    (kept,) = tmp_path.iterdir()
    subprocess.run([sys.executable, "-c", _DIES, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "slalom-masks-link").symlink_to(tmp_path / "elsewhere")
    other = tmp_path / "mine"
    other.write_text("not a vault's")
    after = fresh_vault(tmp_path, DIGEST, PlainMemory)
    names = {path.name for path in tmp_path.iterdir()}
    assert {kept.name, "mine", "slalom-masks-link"} < names and len(names) == 4
    np.testing.assert_array_equal(living.open(record), words_of(100))
    for vault in (living, after):
        vault.destroy()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "slalom-masks-link"}
