"""The manifest of a tiny plan: what is in it, that nothing else is, that it is the same every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from slalom.errors import ApiMisuse, ModelError
from slalom.gramine import (
    Enclave,
    Installation,
    Run,
    check_manifest,
    encode_manifest,
    make_manifest,
    measure_installation,
)
from slalom.gramine.manifest import Avx512
from tests.gramine.conftest import Place
from tests.gramine.enclaves import OWN

DEVICE = "tcp:127.0.0.1:7351"


def test_it_is_what_it_must_be(place: Place, installation: Installation) -> None:
    run = Run(place.plan_file, DEVICE, threads=6)
    document = make_manifest(run, Enclave(1 << 31, 7, 3, Avx512.REQUIRED), installation)
    check_manifest(document)
    sgx, argv = document["sgx"], document["loader"]["argv"]
    assert argv[:6] == [str(place.python), "-I", "-B", "-m", "slalom.cli", "eval"]
    assert argv[6] == str(place.plan_file) and argv[-1] == "--json"
    assert argv[argv.index("--device") + 1] == DEVICE
    assert argv[argv.index("--bulk") + 1] == "shm"
    assert (sgx["enclave_size"], sgx["max_threads"]) == ("2G", 6 + 4 + 4)
    assert (sgx["isvprodid"], sgx["isvsvn"], sgx["cpu_features"]) == (7, 3, {"avx512": "required"})


def test_every_trusted_file_has_the_hash_that_it_has(installation: Installation) -> None:
    for file in (*installation.files, installation.libos):
        content = Path(file.path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size)


def test_what_the_trusted_side_needs_is_there_and_the_device_is_not(place: Place, installation: Installation) -> None:
    paths = [file.path for file in installation.files]
    names = {Path(path).name for path in paths}
    assert paths == sorted(set(paths))
    assert {str(place.plan_file), str(place.python), str(place.python.parents[1] / "pyvenv.cfg")} <= set(paths)
    assert {"walk.py", "checker.py", "__main__.py", "slalom.pth", *OWN} <= names
    assert any(name.startswith("_native.") for name in names)
    rooms = ("slalom/device/", "slalom/attacks/", "slalom/importer/", "/torch/", "/triton/")
    assert not [path for path in paths if any(room in path for room in rooms)]
    assert not [path for path in paths if path.endswith(".pyc") or path.startswith(("/proc", "/dev", "/sys", "/etc"))]


def test_the_c_library_is_gramines(place: Place, installation: Installation) -> None:
    runtime = place.gramine / "runtime" / "glibc"
    for name in OWN:
        assert [file.path for file in installation.files if Path(file.path).name == name] == [str(runtime / name)]


def test_every_trusted_file_is_mounted(place: Place, installation: Installation) -> None:
    document = make_manifest(Run(place.plan_file, DEVICE), Enclave(1 << 30), installation)
    sources = [mount["uri"].removeprefix("file:") for mount in document["fs"]["mounts"] if "type" not in mount]
    for file in installation.files:
        assert any(Path(file.path).is_relative_to(source) for source in sources), file.path


def test_the_same_plan_and_installation_give_the_same_bytes(place: Place, installation: Installation) -> None:
    again = measure_installation(place.python, place.gramine, place.plan_file)
    run, enclave = Run(place.plan_file, DEVICE), Enclave(1 << 30)
    texts = {encode_manifest(make_manifest(run, enclave, found)) for found in (installation, again)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    "device",
    ["cpu", "tcp:worker:7351", "tcp:127.0.0.1", "tcp:127.0.0.1:0", "tcp:127.0.0.1:65536", "tcp:1.2.3.4.5:1",
     "unix:/x", "tcp:127.0.0.1:1\n", "tcp:[::1:1", "tcp:[127.0.0.1]:x", ""],
)  # fmt: skip
def test_a_device_that_is_no_numeric_address_is_refused(place: Place, installation: Installation, device: str) -> None:
    with pytest.raises(ApiMisuse, match="is no device for an enclave"):
        make_manifest(Run(place.plan_file, device), Enclave(1 << 30), installation)


def test_an_unchecked_protection_is_refused(place: Place, installation: Installation) -> None:
    with pytest.raises(ModelError, match="one protection with checks"):
        make_manifest(Run(place.plan_file, DEVICE, "blinded"), Enclave(1 << 30), installation)


def test_no_gramine_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no Gramine in") as refusal:
        measure_installation(place.python, tmp_path, place.plan_file)
    assert refusal.value.hint


def test_an_interpreter_without_slalom_is_refused(place: Place, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(ModelError, match=r"does not run with .*No module named 'slalom'"):
        measure_installation(tmp_path / "bare" / "bin" / "python", place.gramine, place.plan_file)
    with pytest.raises(ModelError, match="cannot run"):
        measure_installation(tmp_path / "nothing", place.gramine, place.plan_file)
