"""`slalom worker` beside `slalom eval`: real processes, over unix and tcp, honest and not."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("torch")

from slalom import Plan
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, ModelError, SlalomError, WireError
from tests.cli.running import ROOT, TINY, answer, assert_refused, process, slalom, worker
from tests.graphs import dense_graph, residual_graph

SMALL = ("--batch-size", 2, "--batches", 2, "--threads", 1)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "residual.slalom"
    Plan(*residual_graph()).save(path)
    return path


@pytest.fixture(scope="module")
def expected(plan_file: Path) -> str:
    """The digest of the outputs, computed inside."""
    digest = answer("eval", plan_file, "--protection", "enclave", *SMALL)["outputs_sha256"]
    assert isinstance(digest, str)
    return digest


# ---------------------------------------------------------------- honest


def test_over_unix_sockets_and_tcp(plan_file: Path, expected: str, tmp_path: Path) -> None:
    """Every way that arrays cross; the port is one that was free, and stands on stdout."""
    with worker(plan_file, f"unix:{tmp_path / 'w'}") as near, worker(plan_file, "tcp:127.0.0.1:0") as far:
        assert near == f"unix:{tmp_path / 'w'}" and far.startswith("tcp:127.0.0.1:") and not far.endswith(":0")
        for endpoint, bulk in ((near, "auto"), (near, "inline"), (far, "auto"), (far, "inline")):
            found = answer("eval", plan_file, "--device", endpoint, "--bulk", bulk, *SMALL)
            assert found["outputs_sha256"] == expected and found["incidents"] == []
            (named,) = found["workers"]
            assert named["name"] == endpoint and not named["in_process"] and "seccomp" in named["isolation"]
        both = answer("eval", plan_file, "--device", near, "--device", far, "--protection", "verified", *SMALL)
        assert both["outputs_sha256"] == expected
        assert [named["name"] for named in both["workers"]] == [near, far]


def test_memory_by_name_must_be_allowed(plan_file: Path, expected: str) -> None:
    with worker(plan_file, "tcp:127.0.0.1:0", "--allow-shm") as endpoint:
        found = answer("eval", plan_file, "--device", endpoint, "--bulk", "shm", *SMALL)
        assert found["outputs_sha256"] == expected
    with worker(plan_file, "tcp:127.0.0.1:0") as endpoint:
        result = slalom("eval", plan_file, "--device", endpoint, "--bulk", "shm", *SMALL)
        assert_refused(result, DeviceError, "the worker did not understand what it was sent", hint=False)


def test_a_worker_with_another_plan(plan_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "dense.slalom"
    Plan(*dense_graph()).save(other)
    with worker(other, f"unix:{tmp_path / 'w'}") as endpoint:
        result = slalom("eval", plan_file, "--device", endpoint)
        assert_refused(result, DeviceError, "has another plan", "start the worker with the same plan file")


def test_something_else_that_listens_there(plan_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-m", "slalom.cli", "eval", str(plan_file)]
        place = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen([*command, "--device", place], cwd=ROOT, text=True, stderr=subprocess.PIPE) as running:
            guest, _ = server.accept()
            with guest:
                guest.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\r\n")
                _, stderr = running.communicate(timeout=60)
    assert running.returncode == WireError.exit_code
    assert len(stderr.splitlines()) <= 2 and "HTTP" not in stderr


# ---------------------------------------------------------------- cheating


@pytest.mark.parametrize(
    ("attack", "kind"), [("flip_element", IntegrityError), ("wrong_shape", WireError), ("extra_answer", WireError)]
)
def test_a_cheating_worker_is_refused_or_replaced(
    attack: str, kind: type[SlalomError], plan_file: Path, expected: str, tmp_path: Path
) -> None:
    """Refused with the exit code of what it did; or another answers, or the trusted process itself, and it is said."""
    with (
        worker(plan_file, f"unix:{tmp_path / 'c'}", "--attack", attack) as cheat,
        worker(plan_file, f"unix:{tmp_path / 'h'}") as honest,
    ):
        refused = slalom("eval", plan_file, "--device", cheat, *SMALL)
        assert_refused(refused, kind, hint=kind is IntegrityError)
        for on_failure, others, outcome in (
            ("retry", ("--device", honest), "run again on another worker"),
            ("enclave", (), "computed inside"),
        ):
            command = ("eval", plan_file, *others, "--device", cheat, "--on-failure", on_failure, *SMALL, "--json")
            result = slalom(*command)
            assert result.exit_code == 0, result.stderr
            found = json.loads(result.stdout)
            assert found["outputs_sha256"] == expected
            (incident,) = found["incidents"]
            assert (incident["worker"], incident["error"], incident["outcome"]) == (cheat, kind.__name__, outcome)
            (line,) = result.stderr.splitlines()
            assert line.startswith(f"worker {cheat} failed ({kind.__name__}: ") and line.endswith(f": {outcome}")


def test_no_worker_is_left_that_does_not_cheat(plan_file: Path) -> None:
    """Each of the three attempts starts a worker that cheats as the last one did."""
    common = ("eval", plan_file, "--device", "spawn", "--attack", "flip_element", *SMALL)
    result = slalom(*common, "--on-failure", "retry")
    assert_refused(result, IntegrityError, "attack 'flip_element' refused")


# ---------------------------------------------------------------- a worker that does not start, or ends


def test_a_worker_that_cannot_serve_says_why(plan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.slalom").write_text("no plan, but long enough to be one")
    common = ("worker", "--listen")
    refusals: list[tuple[tuple[object, ...], type[SlalomError]]] = [
        ((*common, f"unix:{tmp_path / 'w'}", "--plan", tmp_path / "none.slalom"), ModelError),
        ((*common, f"unix:{tmp_path / 'w'}", "--plan", tmp_path / "text.slalom"), ModelError),
        ((*common, f"unix:{tmp_path / 'no' / 'w'}", "--plan", plan_file), DeviceError),
        ((*common, "tcp:203.0.113.1:7000", "--plan", plan_file), DeviceError),
    ]
    for arguments, kind in refusals:
        result = process(*arguments)
        assert (result.returncode, result.stdout) == (kind.exit_code, ""), result.stderr
        lines = [line for line in result.stderr.splitlines() if not line.startswith("  hint: ")]
        assert len(lines) == 1 and lines[0].startswith("slalom: ")


@pytest.mark.parametrize(
    ("options", "word", "hint"),
    [
        (("--allow-shm",), "--allow-shm is for tcp", False),
        (("--threads", 0), "--threads must be at least 1, not 0", False),
    ],
)
def test_options_of_a_worker(options: tuple[object, ...], word: str, hint: bool, plan_file: Path) -> None:
    result = slalom("worker", "--plan", plan_file, "--listen", "unix:w", *options)
    assert_refused(result, ApiMisuse, word, hint=hint)


def test_a_place_that_is_taken_and_one_that_was_left(plan_file: Path, expected: str, tmp_path: Path) -> None:
    """Where a worker lives nobody else listens; where one was killed the next may."""
    place = f"unix:{tmp_path / 'w'}"
    with worker(plan_file, place):
        result = process("worker", "--plan", plan_file, "--listen", place)
        assert result.returncode == DeviceError.exit_code and "cannot listen on" in result.stderr
    assert (tmp_path / "w").is_socket()
    with worker(plan_file, place):
        assert answer("eval", plan_file, "--device", place, *SMALL)["outputs_sha256"] == expected


# ---------------------------------------------------------------- the keyboard


TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and its children inherit that
os.execv(sys.executable, [sys.executable, "-m", "slalom.cli", *sys.argv[1:]])
"""


class Terminal:
    """A program with a terminal of its own, and all that it writes there."""

    def __init__(self, *arguments: object) -> None:
        self._descriptor, theirs = pty.openpty()
        command = [sys.executable, "-c", TAKE_TERMINAL, *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.pid = self._process.pid
        self.text = ""

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Reads on until something is so, or a minute is over."""
        os.set_blocking(self._descriptor, False)
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self._descriptor, 65536).decode("utf-8", "replace")
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # nobody has the terminal any more
                return

    def end(self) -> int:
        """What it ended with."""
        self.read_until(lambda: False)
        return self._process.wait(60)

    def close(self) -> None:
        for pid in [self.pid, *descendants(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        os.close(self._descriptor)


@contextmanager
def terminal(*arguments: object) -> Iterator[Terminal]:
    running = Terminal(*arguments)
    try:
        yield running
    finally:
        running.close()


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found + [further for child in found for further in descendants(child)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupt_in_the_middle_of_requests(plan_file: Path) -> None:
    """The trusted process is the one that is interrupted: it says so, and ends its workers."""
    many = ("--batch-size", 1, "--batches", 30000, "--threads", 1)
    with terminal("eval", plan_file, "--device", "spawn", "--device", "spawn", *many) as running:
        running.read_until(lambda: "images" in running.text)
        workers = descendants(running.pid)
        assert len(workers) == 2 and all(os.getsid(pid) == pid for pid in workers)
        running.press(b"\x03")
        assert running.end() == 130
        assert "slalom: interrupted" in running.text and "Traceback" not in running.text
        assert not [pid for pid in workers if is_running(pid)]


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5])
def test_an_interrupt_while_a_network_is_compiled_elsewhere(delay: float) -> None:
    """From the moment that the other process is there: no traceback of its own."""
    with terminal("eval", TINY, "--batches", 1) as running:
        running.read_until(lambda: bool(descendants(running.pid)))
        others = descendants(running.pid)
        time.sleep(delay)
        running.press(b"\x03")
        assert running.end() == 130
        assert "slalom: interrupted" in running.text and "Traceback" not in running.text, running.text
        end = time.monotonic() + 3
        while any(is_running(pid) for pid in others) and time.monotonic() < end:
            time.sleep(0.02)
        assert not [pid for pid in others if is_running(pid)]


def test_an_interrupted_worker(plan_file: Path, tmp_path: Path) -> None:
    with terminal("worker", "--plan", plan_file, "--listen", f"unix:{tmp_path / 'w'}") as running:
        running.read_until(lambda: "isolation: " in running.text and str(tmp_path) in running.text)
        running.press(b"\x03")
        assert running.end() == 130
        assert "Traceback" not in running.text
