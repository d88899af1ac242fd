"""Every secret comes from here: uniform, never twice, gone when destroyed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.field import P
from slalom.errors import PrivacyError
from slalom.isolation.secret import SecretMemory
from slalom.trusted.randomness import PlainMemory, Randomness
from tests.trusted.statistics import LIMIT, chi_square_p, uniformity

COUNT = 2**22


def test_mask_words_are_uniform_over_all_32_bits() -> None:
    randomness = Randomness()
    words = np.concatenate([randomness.expand_words(randomness.draw_stream(), COUNT // 4) for _ in range(4)])
    assert words.dtype == np.int32
    assert uniformity(words) > LIMIT
    unsigned = words.view(np.uint32)
    # the chance that 2^22 words all miss the lowest, or highest, 2^-16 of the range is e^-64
    assert unsigned.min() < 2**16
    assert unsigned.max() >= 2**32 - 2**16
    assert uniformity(words[:-1] ^ words[1:]) > LIMIT


@pytest.mark.parametrize("p", [2**24 - 3, 2**23 + 9])
def test_the_statistic_rejects_masks_of_a_24_bit_field(p: int) -> None:
    """The research prototype drew r below p ~ 2^23..2^24 and the words it sent were x + r mod p."""
    drawn = np.random.default_rng(1).integers(0, p, COUNT, dtype=np.uint32)
    assert uniformity(drawn) < LIMIT
    scaled = (drawn.astype(np.uint64) * 2**32 // p).astype(np.uint32)
    assert uniformity((scaled.astype(np.float64) * 0.8).astype(np.uint32)) < LIMIT


def test_the_statistic_rejects_masks_that_cover_four_fifths() -> None:
    """80 % of all words, each equally likely: what the prototype's masks covered of their field."""
    drawn = np.random.default_rng(2).integers(0, int(0.8 * 2**32), COUNT, dtype=np.uint32)
    assert uniformity(drawn) < LIMIT
    assert drawn.max() < 2**32 - 2**16


@pytest.mark.parametrize("bias", ["low bit", "sign", "modulo", "float"])
def test_the_statistic_rejects_small_biases(bias: str) -> None:
    random = np.random.default_rng(3)
    words = random.integers(0, 2**32, COUNT, dtype=np.uint32)
    if bias == "low bit":
        words[: COUNT // 50] |= np.uint32(1)
    elif bias == "sign":
        words[: COUNT // 50] &= np.uint32(2**31 - 1)
    elif bias == "modulo":
        words = (random.integers(0, 2**32, COUNT, dtype=np.uint32) % np.uint32(3 * 2**30)).astype(np.uint32)
    else:
        words = (random.random(COUNT, dtype=np.float32) * np.float32(2**32 - 2**9)).astype(np.uint32)
    assert uniformity(words) < LIMIT


def test_the_statistic_accepts_another_good_source() -> None:
    for seed in range(5):
        assert uniformity(np.random.default_rng(seed).integers(0, 2**32, COUNT // 4, dtype=np.uint32)) > LIMIT


def test_a_stream_is_the_aes_keystream_of_its_seed() -> None:
    """AES-256 of counter blocks (stream, chunk, counter), as GCM counts from 2, under the key gives a seed; the same of
    stream 0 under the seed gives the words: against one written out here."""
    randomness = Randomness()
    key = bytes(randomness._key.buffer)
    for stream in (0, 2**32, 2**64 - 1):
        count = 2**19 + 1001  # words: two chunks of 2^18 and some of a third
        words = randomness.expand_words(stream, count)
        seed = ecb_of(key, b"".join(stream.to_bytes(8, "big") + bytes(4) + n.to_bytes(4, "big") for n in (2, 3)))
        assert randomness.seed_of(stream) == seed
        blocks = b"".join(
            bytes(8) + chunk.to_bytes(4, "big") + counter.to_bytes(4, "big")
            for chunk in range(3) for counter in range(2, 2 + 2**16)
        )  # fmt: skip
        assert words.tobytes() == ecb_of(seed, blocks)[: 4 * count]


def ecb_of(key: bytes, blocks: bytes) -> bytes:
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(blocks)


def test_threads_that_share_a_stream_out_give_the_same_words() -> None:
    randomness, dispatch = Randomness(), make_dispatch(threads=3)
    for count in (0, 1, 2**18, 2**18 + 1, 2**19 + 3, 2**19 + 4, 5 * 2**18 - 3):
        alone = randomness.expand_words(3, count)
        np.testing.assert_array_equal(randomness.expand_words(3, count, dispatch.run_ranges), alone)
    dispatch.close()


@pytest.mark.parametrize("count", [2**18 + 1, 2**19, 2**19 + 3, 3 * 2**18, 4 * 2**18 + 7])
def test_chunks_in_any_order_give_the_same_words(count: int) -> None:
    """A chunk's tag lies where the next one begins: what it overwrote there is written again."""

    def backwards(chunks: int, multiple: int, work: Callable[[int, int], None]) -> None:
        for chunk in reversed(range(chunks)):
            work(chunk, chunk + 1)

    randomness = Randomness()
    np.testing.assert_array_equal(randomness.expand_words(3, count, backwards), randomness.expand_words(3, count))


def test_a_stream_gives_the_same_words_each_time_and_its_prefix() -> None:
    randomness = Randomness()
    stream = randomness.draw_stream()
    words = randomness.expand_words(stream, 1000)
    np.testing.assert_array_equal(randomness.expand_words(stream, 1000), words)
    np.testing.assert_array_equal(randomness.expand_words(stream, 7), words[:7])
    assert randomness.expand_words(stream, 0).size == 0


def test_streams_never_repeat() -> None:
    """A million draws by eight threads, field elements drawn in between: every index once."""
    randomness = Randomness()
    drawn: list[list[int]] = [[] for _ in range(8)]

    def work(mine: list[int]) -> None:
        for number in range(125_000):
            mine.append(randomness.draw_stream())
            if number % 25_000 == 0:
                randomness.draw_field(3)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    streams = np.concatenate([np.array(mine) for mine in drawn])
    assert streams.size == 10**6
    assert np.unique(streams).size == streams.size
    assert randomness.draw_stream() > streams.max()


def test_two_sessions_have_different_keys() -> None:
    first, second = Randomness(), Randomness()
    assert bytes(first._key.buffer) != bytes(second._key.buffer)
    same = first.expand_words(0, 2**16) == second.expand_words(0, 2**16)
    assert np.count_nonzero(same) < 4  # 2^16 pairs agree by chance 2^-16 times on average


def test_field_elements_are_uniform() -> None:
    elements = Randomness().draw_field(2**20)
    assert elements.dtype == np.uint64
    assert int(elements.max()) < P
    for shift in (0, 13, 26, 39):
        assert chi_square_p(((elements >> np.uint64(shift)) & np.uint64(4095)).astype(np.int64), 4096) > LIMIT
    assert int(elements.min()) < P >> 13
    assert int(elements.max()) > P - (P >> 13)


def test_field_elements_at_the_edge_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """p itself and above is refused, p - 1 is kept; nothing is reduced."""
    raw = [[P - 1, P, 2**51 - 1, 5], [P + 1, P - 2], [0]]

    def scripted(self: Randomness, count: int) -> np.ndarray:
        values = raw.pop(0)
        assert len(values) == count
        return np.array(values, np.uint64)

    monkeypatch.setattr(Randomness, "_draw_51_bits", scripted)
    assert Randomness().draw_field(4).tolist() == [P - 1, 0, P - 2, 5]
    assert not raw


def test_draws_of_field_elements_differ() -> None:
    randomness = Randomness()
    drawn = np.concatenate([randomness.draw_field(1000) for _ in range(20)])
    assert np.unique(drawn).size == drawn.size  # 20000 of 2^51: a repetition has probability 10^-7


class Watched(PlainMemory):
    """Tells what it held when it was let go."""

    left: bytes | None = None

    def wipe(self) -> None:
        memory = self.buffer
        super().wipe()
        self.left = bytes(memory)


def test_destroying_overwrites_the_key_and_refuses_every_draw() -> None:
    randomness = Randomness(Watched)
    memory = randomness._key
    assert isinstance(memory, Watched) and any(memory.buffer) and len(memory.buffer) == 32
    randomness.destroy()
    assert memory.left == bytes(32)
    for draw in (randomness.draw_stream, lambda: randomness.expand_words(0, 1), lambda: randomness.draw_field(1)):
        with pytest.raises(PrivacyError, match="destroyed"):
            draw()
    randomness.destroy()


@pytest.mark.parametrize("memory", [PlainMemory, SecretMemory])
def test_the_key_lies_where_it_is_told(memory: type[PlainMemory] | type[SecretMemory]) -> None:
    """All of it, and the draws are the keystream of what lies there."""
    randomness = Randomness(memory)
    key = bytes(randomness._key.buffer)
    assert isinstance(randomness._key, memory) and len(key) == 32 and any(key)
    assert randomness.seed_of(0) == AESGCM(key).encrypt(bytes(12), bytes(32), None)[:32]
    randomness.destroy()


def test_streams_end_with_an_error() -> None:
    randomness = Randomness()
    randomness._next_stream = 2**64 - 1
    assert randomness.draw_stream() == 2**64 - 1
    for _ in range(2):
        with pytest.raises(PrivacyError, match="used up"):
            randomness.draw_stream()


def test_another_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    randomness = Randomness()
    stream = randomness.draw_stream()
    monkeypatch.setattr("os.getpid", lambda: -1)
    draws = (randomness.draw_stream, lambda: randomness.expand_words(stream, 1), lambda: randomness.draw_field(1))
    for draw in (*draws, randomness.require_process):
        with pytest.raises(PrivacyError, match="forked"):
            draw()


def test_destroying_waits_for_a_draw_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the draw could use a key of zeros: overwritten, and not yet gone."""
    from slalom.trusted import randomness as module

    randomness = Randomness()
    stream = randomness.draw_stream()
    key = bytes(randomness._key.buffer)
    destroyer = threading.Thread(target=randomness.destroy)

    def slow_aes(secret: memoryview) -> AESGCM:
        destroyer.start()
        destroyer.join(0.2)
        return AESGCM(bytes(secret))

    monkeypatch.setattr(module, "AESGCM", slow_aes)
    seed = randomness.seed_of(stream)
    destroyer.join(5)
    assert seed == AESGCM(key).encrypt(stream.to_bytes(8, "big") + bytes(4), bytes(32), None)[:32]
