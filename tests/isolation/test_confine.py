"""How a confinement begins: what it refuses to begin without, what it leaves, and that it ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.isolation.machine import ENVIRONMENT, needs_strict, run

START = """
import os, sys
from pathlib import Path
from slalom.errors import ApiMisuse, DeviceError
from slalom.isolation import confine
from slalom.isolation.confine import begin_confinement
from slalom.isolation.files import LandlockOffer, find_landlock
from slalom.isolation.filter import SeccompOffer, find_seccomp
from slalom.isolation.kernel import PR_GET_NO_NEW_PRIVS, prctl
from slalom.isolation.level import Isolation
import py_landlock
"""

REFUSED = """
try:
    begin_confinement(Isolation.STRICT)
except DeviceError as error:
    print(error, "|", error.hint)
print(prctl(PR_GET_NO_NEW_PRIVS), Path("/etc/passwd").exists() and bool(os.listdir("/etc")))
"""


@needs_strict
@pytest.mark.parametrize(
    ("offer", "missing", "hint"),
    [
        ("find_landlock = lambda: LandlockOffer(0, None, 'install it')", "landlock", "install it"),
        ("find_landlock = lambda: LandlockOffer(5, py_landlock, 'newer')", "landlock scopes", "newer"),
        ("find_seccomp = lambda: SeccompOffer(True, None, 'install it')", "seccomp", "install it"),
        ("find_seccomp = lambda: SeccompOffer(False, None, 'another kernel')", "seccomp", "another kernel"),
    ],
)
def test_strict_refuses_before_it_begins(offer: str, missing: str, hint: str) -> None:
    ended = run(START + f"confine.{offer}" + REFUSED)
    assert ended.stdout.splitlines() == [
        f"a worker cannot be isolated strictly: {missing} is missing | {hint}, or ask for best-effort isolation",
        "0 True",
    ], ended.stderr


HIDE = "import sys; sys.modules[{!r}] = None\n"


@pytest.mark.parametrize(("module", "hint"), [("py_landlock", "py-landlock"), ("pyseccomp", "pyseccomp")])
def test_a_library_that_is_not_installed_is_named(module: str, hint: str) -> None:
    code = START.replace("import py_landlock\n", "") + "print(find_landlock().hint, find_seccomp().hint)"
    ended = run(HIDE.format(module) + code)
    assert f"install {hint}, the extra named isolation" in ended.stdout, ended.stderr


@pytest.mark.parametrize("missing", ["landlock", "seccomp"])
def test_best_effort_goes_on_and_says_so(missing: str) -> None:
    offer = {"landlock": "find_landlock = lambda: LandlockOffer(0, None, 'x')",
             "seccomp": "find_seccomp = lambda: SeccompOffer(True, None, 'x')"}[missing]  # fmt: skip
    code = f"confine.{offer}\nprint(begin_confinement(Isolation.BEST_EFFORT).seal().missing)"
    ended = run(START + code)
    assert f"'{missing}'" in ended.stdout, ended.stderr
    assert "'no new privileges'" not in ended.stdout


def test_a_worker_that_compiles_is_not_said_to_be_restricted() -> None:
    code = """
made = begin_confinement(Isolation.BEST_EFFORT, compiles=True).seal()
print(made.missing, os.spawnlp(os.P_WAIT, "true", "true"))
"""
    ended = run(START + code)
    assert "'landlock'" in ended.stdout and "'seccomp'" in ended.stdout, ended.stderr
    assert "'no new privileges'" not in ended.stdout
    assert ended.stdout.strip().endswith(" 0")


def test_a_worker_that_compiles_cannot_be_strict() -> None:
    ended = run(START + REFUSED.replace("Isolation.STRICT", "Isolation.STRICT, compiles=True"))
    assert ended.stdout.splitlines() == [
        "a worker cannot be isolated strictly: landlock is missing | a worker that compiles kernels while it runs must "
        "start programs: use a worker on the CPU, or ask for best-effort isolation",
        "0 True",
    ], ended.stderr


def test_a_worker_on_a_gpu_cannot_be_strict(tmp_path: Path) -> None:
    """Refused before it looks for a GPU, whether there is one or not."""
    code = f"""
from slalom.worker.entry import main
from slalom.worker.options import WorkerOptions
place = "unix:{tmp_path}/worker"
options = WorkerOptions(plan="/etc/hostname", listen=place, device="cuda", isolation="strict")
print(main([options.encode()]))
"""
    ended = run(code)
    assert "cannot be isolated strictly: landlock is missing" in ended.stderr
    assert "compiles kernels" in ended.stderr and ended.stdout.strip() != "0"


@needs_strict
def test_strict_refuses_when_the_kernel_refuses_the_filter() -> None:
    code = """
confinement = begin_confinement(Isolation.STRICT)
def refuse(made): raise PermissionError(1, "Operation not permitted")
confine.load_filter = refuse
try: confinement.seal()
except DeviceError as error: print(error)
"""
    assert run(START + code).stdout == "a worker cannot be isolated strictly: seccomp is missing\n"


@needs_strict
def test_strict_refuses_when_the_kernel_refuses_landlock() -> None:
    code = """
def refuse(library, files): raise py_landlock.RulesetError("no")
confine.restrict_files = refuse
try: begin_confinement(Isolation.STRICT)
except DeviceError as error: print(error)
"""
    assert run(START + code).stdout == "a worker cannot be isolated strictly: landlock is missing\n"


def test_off_does_nothing_and_says_so() -> None:
    code = "r = begin_confinement(Isolation.OFF, readable=[Path('/nowhere')]).seal(); print(r.encode(), r.summary)"
    assert run(START + code).stdout == "0 no isolation\n"


def test_a_path_that_does_not_exist_is_refused() -> None:
    ended = run(START + "begin_confinement(Isolation.BEST_EFFORT, readable=[Path('/nowhere')])")
    assert "ApiMisuse: a worker cannot be given '/nowhere', which does not exist" in ended.stderr


def test_a_worker_is_sealed_once() -> None:
    ended = run(START + "c = begin_confinement(Isolation.OFF); c.seal(); c.seal()")
    assert "ApiMisuse: this worker is sealed already" in ended.stderr


@needs_strict
def test_what_is_given_can_be_used(tmp_path: os.PathLike[str]) -> None:
    """The contrast to the refusals: listed files, kept descriptors, its own streams."""
    code = """
folder = Path(sys.argv[1])
(folder / "in").mkdir(); (folder / "out").mkdir(); (folder / "in" / "file").write_text("read")
ours, other = os.memfd_create("kept"), os.memfd_create("dropped")
(folder / "alone").write_text("alone")
given = [folder / "in", folder / "alone"]
c = begin_confinement(Isolation.STRICT, readable=given, writable=[folder / "out"], keep=[ours])
c.seal()
(folder / "out" / "new").write_text("written")
os.write(ours, b"x")
print((folder / "in" / "file").read_text(), (folder / "out" / "new").read_text(), (folder / "alone").read_text())
for refused in (lambda: (folder / "in" / "new").write_text("x"), lambda: (folder / "alone").write_text("x"),
                lambda: (folder / "in" / "file").write_text("x"), lambda: os.fstat(other), lambda: os.listdir(folder)):
    try: refused(); print("done")
    except OSError as error: print(error.errno)
"""
    ended = run(START + code, str(tmp_path))
    assert ended.stdout == "read written alone\n13\n13\n13\n9\n13\n", ended.stderr


@needs_strict
def test_nothing_heavy_is_imported_and_no_thread_started() -> None:
    code = """
begin_confinement(Isolation.STRICT, parent=os.getppid())
heavy = [name for name in ("numpy", "torch", "slalom.plan") if name in sys.modules]
print(heavy, Path("/proc/self/status").read_text())
"""
    out = run(START + code).stdout
    assert out.startswith("[] ")
    assert "\nThreads:\t1\n" in out


PARENT = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-P", "-c", sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
print(worker.stdout.readline().decode().split()[0], flush=True)
"""
WORKER = (
    START
    + """
import time
begin_confinement(Isolation(sys.argv[1]), parent=os.getppid() if PARENT else None).seal()
print(os.getpid(), flush=True)
time.sleep(60)
"""
)


@needs_strict
@pytest.mark.parametrize("level", ["off", "best-effort", "strict"])
def test_a_worker_ends_with_its_parent(level: str) -> None:
    worker = orphan(level, told=True)
    assert ends_within(worker, 10)


def test_a_worker_that_was_not_told_its_parent_lives_on() -> None:
    """The contrast: it is the signal that ends it."""
    worker = orphan("off", told=False)
    try:
        assert not ends_within(worker, 0.5)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_worker_whose_parent_is_gone_already_ends_at_once() -> None:
    for level in ("off", "strict"):
        ended = run(START + f"begin_confinement(Isolation({level!r}), parent=os.getppid() + 1)\nprint('alive')")
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


def orphan(level: str, *, told: bool) -> int:
    """The id of a worker whose parent has ended."""
    command = [sys.executable, "-P", "-c", PARENT, f"PARENT = {told}\n" + WORKER, level]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, env=ENVIRONMENT, check=True)
    return int(ended.stdout)


def ends_within(process: int, seconds: float) -> bool:
    """Whether a process that is nobody's child here is gone, or a zombie, in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
