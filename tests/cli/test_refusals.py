"""Everything that can be wrong on the command line: one line, a hint, the exit code of its class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from PIL import Image

from slalom.errors import ApiMisuse, DeviceError, InputError, ModelError
from tests.cli.networks import Tiny
from tests.cli.running import PHOTOGRAPHIC, TINY, assert_refused, slalom


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "photographic.slalom"
    assert slalom("compile", PHOTOGRAPHIC, "-o", path).exit_code == 0
    return path


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--rounds", 0, "rounds must be 1..64"),
        ("--rounds", -1, "rounds must be 1..64"),
        ("--rounds", 65, "rounds must be 1..64"),
        ("--check", "none", "choose one of direct, batched, preprocessed"),
        ("--protection", "secret", "choose one of device, enclave"),
        ("--device", "cuda", "'cuda' is no place of a worker"),
        ("--device", "tcp:127.0.0.1", "give spawn, cpu, unix:PATH or tcp:HOST:PORT"),
        ("--device", "unix:", "give spawn, cpu"),
        ("--isolation", "some", "choose one of: strict, best-effort, off"),
        ("--schedule", "behind", "choose one of ahead, layerwise"),
        ("--attack", "nothing", "flip_element"),
        ("--isa", "sse9", "choose one of numpy, portable"),
    ],
)
def test_options_with_a_hint(option: str, value: object, word: str) -> None:
    assert_refused(slalom("eval", "no_such_network", option, value), ApiMisuse, word)


@pytest.mark.parametrize("option", ("--threads", "--batch-size", "--batches"))
@pytest.mark.parametrize("value", (0, -3))
def test_counts_below_one(option: str, value: int) -> None:
    result = slalom("eval", "no_such_network", option, value)
    assert_refused(result, ApiMisuse, f"{option} must be at least 1, not {value}", hint=False)


@pytest.mark.parametrize("option", ("--batch-size", "--micro-batches"))
def test_counts_below_one_in_bench(option: str) -> None:
    assert_refused(slalom("bench", "no_such_network", option, 0), ApiMisuse, "at least 1", hint=False)


@pytest.mark.parametrize("protection", ("device", "enclave", "blinded"))
def test_an_attack_where_nothing_is_checked(protection: str) -> None:
    result = slalom("eval", TINY, "--attack", "zero", "--protection", protection)
    assert_refused(result, ApiMisuse, f"protection {protection} checks nothing", "verified or private")


@pytest.mark.parametrize("bits", (1, 16))
def test_bits_out_of_range(bits: int) -> None:
    assert_refused(slalom("eval", TINY, "--bits", bits), ApiMisuse, "2..15", hint=False)


def test_few_bits_are_what_the_user_asked_for() -> None:
    assert slalom("eval", TINY, "--bits", 3, "--batches", 1).exit_code == 0


def test_image_size_of_a_network_without_images(plan_file: Path) -> None:
    assert_refused(slalom("eval", TINY, "--image-size", 0), ApiMisuse, "--image-size must be at least 1", hint=False)
    assert_refused(slalom("eval", plan_file, "--image-size", 8), ApiMisuse, "compiled already")


def test_an_image_size_that_the_network_does_not_take() -> None:
    assert_refused(slalom("eval", TINY, "--image-size", 40), ModelError, "reduction dim")


@pytest.mark.parametrize(
    "arguments",
    (["eval"], ["eval", TINY, "--no-such"], ["eval", TINY, "--rounds", "two"], ["evaluate"], ["inspect"], ["a", "b"]),
)
def test_usage_errors(arguments: list[str]) -> None:
    result = slalom(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert "Traceback" not in result.stderr and "slalom" in result.stderr


def test_no_arguments_show_the_commands() -> None:
    result = slalom()
    assert all(name in result.output for name in ("eval", "compile", "inspect", "bench"))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mobilnet", ("no network is called 'mobilnet'", "did you mean mobilenet")),
        ("resnet_51", ("resnet_50",)),
        ("zzz", ("package.module:factory",)),
        ("tests.cli.networks:missing", ("has no 'missing'",)),
        ("tests.cli.networks:nothing", ("has no 'nothing'",)),
        ("no.such.module:factory", ("cannot import 'no.such.module'",)),
        ("tests.cli.networks:broken", ("cannot be made: KeyError", "its own code")),
        ("tests.cli.networks:Failing", ("cannot be compiled: ZeroDivisionError: one by nothing",)),
        ("tests.cli.networks:WithoutShape", ("does not say its input shape", "input_shape = (3, 224, 224)")),
        ("tests.cli.networks:Unsupported", ("cumsum", "supported")),
    ],
)
def test_networks(model: str, words: tuple[str, ...]) -> None:
    assert_refused(slalom("eval", model), ModelError, *words)


def test_a_factory_that_makes_no_network() -> None:
    result = slalom("eval", "tests.cli.networks:number")
    assert_refused(result, ModelError, "made a int instead of a torch.nn.Module", hint=False)


def test_a_checkpoint_is_no_network() -> None:
    assert_refused(slalom("eval", "resnet50.pth"), ApiMisuse, "holds weights and no network", "--weights resnet50.pth")


# ---------------------------------------------------------------- plans


def test_a_missing_plan(tmp_path: Path) -> None:
    path = tmp_path / "none.slalom"
    for command in ("eval", "inspect"):
        result = slalom(command, path)
        assert_refused(result, ModelError, "cannot read plan", "No such file", hint=False)
    assert_refused(slalom("inspect", tmp_path), ModelError, "directory", hint=False)


@pytest.mark.parametrize("kept", (0, 7, 40, 700, -1))
def test_a_truncated_plan(plan_file: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.slalom"
    path.write_bytes(plan_file.read_bytes()[:kept])
    for command in ("eval", "inspect"):
        result = slalom(command, path)
        assert (result.exit_code, result.stdout) == (ModelError.exit_code, "")
        assert result.stderr.startswith("slalom: ") and len(result.stderr.splitlines()) <= 2


def test_a_plan_of_another_version(plan_file: Path, tmp_path: Path) -> None:
    content = plan_file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    manifest = json.loads(header["__metadata__"]["manifest"])
    (version,) = (key for key in manifest if "version" in key)
    manifest[version] += 1
    header["__metadata__"]["manifest"] = json.dumps(manifest)
    encoded = json.dumps(header).encode()
    path = tmp_path / "later.slalom"
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + size :])
    assert_refused(slalom("inspect", path), ModelError, "version")


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: state.pop("head.weight"), "lacks head.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "has more that the network has not"),
        (lambda state: state.update({"head.bias": torch.zeros(9)}), "head.bias has shape (9,)"),
        (lambda state: state.update({"head.bias": torch.full((4,), torch.nan)}), "not finite"),
    ],
)
def test_checkpoints_that_do_not_fit(change: object, word: str, tmp_path: Path) -> None:
    state = Tiny().state_dict()
    assert callable(change)
    change(state)
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    result = slalom("eval", TINY, "--weights", path)
    assert_refused(result, ModelError, word, hint="hint" in result.stderr)


@pytest.mark.parametrize("name", ("notes.pt", "notes.safetensors", "empty.pth", "notes.txt"))
def test_files_that_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("" if name.startswith("empty") else "these are my notes, and they are long enough")
    result = slalom("eval", TINY, "--weights", path)
    assert_refused(result, ModelError, name, hint="hint" in result.stderr)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    result = slalom("eval", TINY, "--weights", tmp_path / "none.pt")
    assert_refused(result, ModelError, "no weights at", hint="hint" in result.stderr)


# ---------------------------------------------------------------- photos


def test_directories_without_photos(plan_file: Path, tmp_path: Path) -> None:
    assert_refused(slalom("eval", plan_file, "--images", tmp_path), InputError, "no photos in", ".jpg")
    missing = slalom("eval", plan_file, "--images", tmp_path / "none")
    assert_refused(missing, InputError, "no such directory", hint=False)


@pytest.mark.parametrize("content", ("broken", "text", "empty"))
def test_broken_photos(plan_file: Path, tmp_path: Path, content: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a_good.jpg")
    whole = (tmp_path / "a_good.jpg").read_bytes()
    path = tmp_path / "bad.jpg"
    path.write_bytes({"broken": whole[: len(whole) // 2], "text": b"not a photo\n" * 9, "empty": b""}[content])
    result = slalom("eval", plan_file, "--images", tmp_path, "--json")
    assert_refused(result, InputError, "bad.jpg cannot be read as a photo", "jpeg")


def test_photos_for_a_network_that_does_not_take_them(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for option in ("--images", "--calibration"):
        result = slalom("eval", TINY, option, tmp_path)
        assert_refused(result, ApiMisuse, "does not say how a photo becomes its input", "Preprocessing")


def test_a_label_beyond_the_classes(plan_file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,4\n")
    assert_refused(slalom("eval", plan_file, "--images", tmp_path), InputError, "labelled 4", "numbered from 0")


# ---------------------------------------------------------------- the machine


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "slalom: not enough memory"),
        (PermissionError(13, "Permission denied", "photos"), "slalom: photos: Permission denied"),
        (KeyboardInterrupt(), "slalom: interrupted"),
    ],
)
def test_what_the_machine_refuses(error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("slalom.cli.evaluate.offline_network", fail)
    result = slalom("eval", TINY)
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert result.stdout == "" and result.stderr.splitlines()[0] == line


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--on-failure", "pray"), "choose one of fail, retry, enclave"),
        (("--bulk", "pickle"), "choose one of auto, memfd, shm, inline"),
        (("--bulk", "shm"), "--bulk memfd"),
        (("--device", "tcp:127.0.0.1:1", "--bulk", "memfd"), "inline between two"),
        (("--timeout", 0), "timeout_seconds must be positive"),
    ],
)
def test_words_about_workers(plan_file: Path, options: tuple[object, ...], word: str) -> None:
    place = () if "--device" in options else ("--device", "spawn")
    hint = "--timeout" not in options
    assert_refused(slalom("eval", plan_file, *place, *options), ApiMisuse, word, hint=hint)


def test_an_attack_is_not_for_a_worker_that_runs_elsewhere(plan_file: Path) -> None:
    result = slalom("eval", plan_file, "--device", "unix:/nowhere", "--attack", "zero")
    assert_refused(result, ApiMisuse, "for workers that are started here", "slalom worker --attack zero")


@pytest.mark.parametrize("place", ["unix:/nowhere/w", "tcp:127.0.0.1:1"])
def test_a_worker_that_is_not_there(plan_file: Path, place: str) -> None:
    assert_refused(slalom("eval", plan_file, "--device", place), DeviceError, f"no worker at {place}", "slalom worker")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--listen", "nowhere"), "is no place of a worker"),
        (("--listen", "unix:w", "--device", "tpu"), "choose one of cpu, cuda"),
        (("--listen", "unix:w", "--isolation", "much"), "choose one of: strict"),
        (("--listen", "unix:w", "--attack", "kindness"), "there is no attack"),
    ],
)
def test_a_worker_is_refused(plan_file: Path, options: tuple[str, ...], word: str) -> None:
    assert_refused(slalom("worker", "--plan", plan_file, *options), ApiMisuse, word)


def test_a_refusal_is_one_line_whatever_the_names_hold(tmp_path: Path) -> None:
    result = slalom("inspect", tmp_path / "two\nlines\x1b[31m\udcff.slalom")
    assert_refused(result, ModelError, "two\\nlines\\x1b[31m\\udcff.slalom", hint=False)
