"""Every line of the deny list is in force, on every thread; threads still start; the list is well formed."""

from __future__ import annotations

import errno
import json
import os

import pytest

from slalom.errors import DeviceError
from slalom.isolation.filter import find_seccomp, make_filter
from slalom.isolation.syscalls import DENIED, FIRST_UNKNOWN, LAST_UNKNOWN, NEWER, conditions
from tests.isolation.machine import OFFERED, ROOT_USER, needs_strict, run

NAMES = tuple(name for line in DENIED for name in line.split())

# Calls each with arguments that mean nothing, so that what reaches the kernel fails for another reason than EPERM.
CALL_ALL = """
import ctypes, json, os, sys
from slalom.isolation import filter
from slalom.isolation.confine import begin_confinement
from slalom.isolation.level import Isolation
import pyseccomp
confinement = begin_confinement(Isolation(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
confinement.seal()
answers = {}
for name in sys.argv[2:]:
    number = filter._number_of(pyseccomp, name)
    if number >= 0:
        minus = (ctypes.c_long(-1),) * 6
        answers[name] = ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *minus) < 0 else 0
print(json.dumps(answers))
"""
# These would do something to this process, or to the machine, whatever their arguments.
NEVER_IN_EARNEST = {"fork", "vfork", "vhangup", "lookup_dcookie", "uselib"}
# These ask for a right first, whatever their arguments: refused to everybody who lacks it, and so no contrast.
FIRST_ASK = {"adjtimex", "clock_adjtime", "quotactl_fd"}


@needs_strict
def test_every_named_call_is_refused_in_a_sealed_worker() -> None:
    ended = run(CALL_ALL, "strict", *NAMES)
    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout)
    assert set(answers.values()) == {errno.EPERM}, {name: n for name, n in answers.items() if n != errno.EPERM}
    assert len(answers) > 80


@needs_strict
def test_the_filter_is_what_refuses_them() -> None:
    if not ROOT_USER:
        pytest.skip("many of them are refused to whoever is not root, with the same answer")
    ended = run(CALL_ALL, "off", *(name for name in NAMES if name not in NEVER_IN_EARNEST))
    assert ended.returncode == 0, ended.stderr
    silent = {name for name, number in json.loads(ended.stdout).items() if number == errno.EPERM}
    assert silent <= FIRST_ASK


THREADS = """
import errno, os, threading
from slalom.isolation.confine import begin_confinement
from slalom.isolation.level import Isolation
answers, go = [], threading.Event()
def attack():
    go.wait()
    try:
        os.pidfd_open(os.getpid())
    except OSError as error:
        answers.append(errno.errorcode[error.errno])
confinement = begin_confinement(Isolation.STRICT)
early = threading.Thread(target=attack); early.start()
report = confinement.seal()
late = threading.Thread(target=attack); late.start()
go.set(); early.join(); late.join()
print(answers, report.seccomp, report.missing)
"""


@needs_strict
def test_threads_from_before_the_seal_are_sealed_and_new_ones_start() -> None:
    ended = run(THREADS)
    assert ended.stdout == "['EPERM', 'EPERM'] True ('parent death signal',)\n", ended.stderr


# The reason why the list exists, said once more: no line of it goes without a test noticing.
ISSUE = """
ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal kcmp process_madvise move_pages
migrate_pages tkill perf_event_open bpf userfaultfd io_uring_setup io_uring_enter io_uring_register add_key
request_key keyctl fanotify_init personality execve execveat fork vfork connect bind listen shmget shmat msgget semget
mq_open mount umount2 pivot_root chroot setns unshare fsopen fsmount move_mount open_tree mount_setattr
name_to_handle_at open_by_handle_at chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr utimensat
mknod mknodat inotify_add_watch kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff
clock_settime sethostname iopl ioperm
"""


def test_the_list_holds_what_it_is_for() -> None:
    assert set(ISSUE.split()) <= set(NAMES)
    conditional = {name for name, _ in conditions(1, gpu=False)}
    assert {"socket", "socketpair", "clone", "kill", "tgkill", "rt_sigqueueinfo", "prctl", "prlimit64"} <= conditional


def test_the_list_names_each_call_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert set(NEWER) <= set(NAMES)
    assert max(NEWER.values()) < FIRST_UNKNOWN


@pytest.mark.skipif(not OFFERED.libseccomp, reason="no libseccomp here")
def test_calls_of_later_kernels_are_refused() -> None:
    """Read from the filter itself, since no kernel that has them may be at hand."""
    library = find_seccomp().library
    assert library is not None
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        make_filter(library, gpu=False).export_pfc(file)
        text = os.pread(file.fileno(), 1 << 20, 0).decode()
    for number in (FIRST_UNKNOWN, LAST_UNKNOWN):
        assert f"if ($syscall == {number})\n    action ERRNO({errno.ENOSYS});" in text


@pytest.mark.skipif(not OFFERED.libseccomp, reason="no libseccomp here")
def test_a_name_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library = find_seccomp().library
    assert library is not None
    monkeypatch.setattr("slalom.isolation.filter.DENIED", ("no_such_call",))
    with pytest.raises(DeviceError, match="does not know the system call no_such_call"):
        make_filter(library, gpu=False)
