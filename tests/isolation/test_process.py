"""The trusted process hardens itself."""

from __future__ import annotations

import resource

import pytest

from tests.isolation.machine import OFFERED, run

HARDEN = """
import os, resource, sys
from slalom.isolation import process
from slalom.isolation.kernel import PR_GET_DUMPABLE, prctl
from slalom.isolation.level import Isolation
report = process.harden_process(Isolation(sys.argv[1]))
print(prctl(PR_GET_DUMPABLE), resource.getrlimit(resource.RLIMIT_CORE)[0], "|", report.summary)
"""


def test_it_cannot_be_read_and_leaves_no_core() -> None:
    for level in ("strict", "best-effort"):
        assert run(HARDEN, level).stdout == "0 0 | unreadable memory, no core files\n"


def test_off_does_nothing() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)[0]  # 0 already where a session has hardened this process
    ended = run(HARDEN, "off")
    assert ended.stdout == f"1 {before} | missing: unreadable memory, no core files\n", ended.stderr


def test_strict_refuses_when_the_kernel_does() -> None:
    code = HARDEN.replace("report =", "process.forbid_dumps = lambda: (False, True)\nreport =")
    ended = run(code, "strict")
    assert "DeviceError: the trusted process cannot be hardened: unreadable memory is refused" in ended.stderr
    assert run(code, "best-effort").stdout.endswith("| missing: unreadable memory\n")


def test_another_process_of_the_same_user_cannot_read_it() -> None:
    """As nobody, since root may read everything; the contrast is the same without hardening."""
    code = """
import ctypes, os, sys
from slalom.isolation.level import Isolation
from slalom.isolation.process import harden_process
from tests.isolation.attacks import SECRET, Target, read_memory
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # giving up root made it unreadable already
secret = ctypes.create_string_buffer(SECRET)
harden_process(Isolation(sys.argv[1]))
parent = os.getpid()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    try:
        secret_here = read_memory(Target(parent, ctypes.addressof(secret), 0, 0, 0, 0, "", 0, ""))
        os.write(1, b"read " + secret_here)
    except OSError as error:
        os.write(1, b"refused")
    os._exit(0)
os.waitpid(child, 0)
"""
    if OFFERED.ptrace_scope:
        pytest.skip("Yama keeps every child from reading its parent")
    assert run(code, "off").stdout == "read the-parent-s-key"
    assert run(code, "strict").stdout == "refused"
