"""Which system calls a sealed worker is refused, and why. What is not named here stays allowed, threads included.

A deny list, since what torch, a driver and libc call changes with every release, while the ways into another
process are few and known. Calls that this list cannot know yet are refused by number (`FIRST_UNKNOWN`).
"""

from __future__ import annotations

from dataclasses import dataclass

from slalom.isolation.kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG

PR_SET_MM = 35
PR_SET_PTRACER = 0x59616D61
RLIMIT_CORE = 4
CLONE_THREAD = 0x00010000
CLONE_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
F_SETOWN = 8
F_SETOWN_EX = 15

INT = 0xFFFFFFFF  # an int argument: the kernel reads 32 of the register's 64 bits, and so must a rule


@dataclass(frozen=True)
class Argument:
    """A condition on one argument, 0 to 5: `value` under `mask`, or, without a mask, any other than `value`."""

    index: int
    value: int
    mask: int | None = None


# Always refused with EPERM.
DENIED = (
    # Other processes: their memory, descriptors, registers, state. landlock's own rule on tracing is a second lock.
    "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp",
    "pidfd_open pidfd_getfd pidfd_send_signal move_pages migrate_pages",
    # Signals by thread id alone: no condition can tell whose thread it is. libc uses tgkill.
    "tkill",
    # Windows into the kernel with a long history of holes, which see or change more than their caller.
    "perf_event_open bpf userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl",
    "lookup_dcookie uselib modify_ldt personality syslog fanotify_init fanotify_mark",
    # New programs and new processes: a worker computes. clone has its own conditions, for threads.
    "execve execveat fork vfork",
    # New ways to speak to somebody. What was kept open stays usable, with accept and sendmsg.
    "connect bind listen",
    # Memory and queues that are found by number or name, outside the file system and so outside landlock.
    "shmget shmat shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink",
    # Another view of the file system.
    "mount umount umount2 pivot_root chroot setns unshare fsopen fsconfig fsmount fspick move_mount open_tree",
    "open_tree_attr mount_setattr statmount listmount",
    # Files by number instead of path.
    "name_to_handle_at open_by_handle_at",
    # Changes to files that landlock does not cover: mode, owner, times, attributes; and device nodes.
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat mknod mknodat",
    "setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr",
    # Watching names in folders that landlock would not let it list.
    "inotify_init inotify_init1 inotify_add_watch",
    # The machine itself, which root could change.
    "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl quotactl_fd",
    "settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm vhangup",
)

# The numbers of calls that a libseccomp may be too old to name. They are the same on every architecture.
NEWER = {
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "process_mrelease": 448, "fchmodat2": 452,
    "statmount": 457, "listmount": 458, "setxattrat": 463, "removexattrat": 466, "open_tree_attr": 467,
    "file_setattr": 469,
}  # fmt: skip

# Calls of kernels after this list was made (Linux 6.18): refused with ENOSYS, as an older kernel would.
FIRST_UNKNOWN = 470
LAST_UNKNOWN = 599

# ENOSYS for clone3, whose flags lie in memory that a filter cannot read: libc then takes clone.
ABSENT = ("clone3",)


def conditions(own: int, *, gpu: bool) -> tuple[tuple[str, tuple[Argument, ...]], ...]:
    """What is refused with EPERM for some arguments; `own` is this process's id, which a sealed worker keeps.

    `gpu` lets Unix sockets be made, as a driver may do, though still not connected, bound or listened on.
    """
    af_unix = 1
    sockets = (Argument(0, af_unix),) if gpu else ()
    return (
        ("socket", sockets),
        ("socketpair", sockets),
        # A thread is the only thing to clone, and in no new namespace.
        ("clone", (Argument(0, 0, CLONE_THREAD),)),
        *(("clone", (Argument(0, flag, flag),)) for flag in CLONE_NAMESPACES),
        # Signals to others, by process, group (0, -1) or as the owner of a descriptor.
        *((name, (Argument(0, own),)) for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")),
        *(("fcntl", (Argument(1, command, INT),)) for command in (F_SETOWN, F_SETOWN_EX)),
        # Undoing what was begun: being read, traced or dumped, outliving the parent, a false command line.
        *(
            ("prctl", (Argument(0, option, INT),))
            for option in (PR_SET_DUMPABLE, PR_SET_PTRACER, PR_SET_PDEATHSIG, PR_SET_MM)
        ),
        ("setrlimit", (Argument(0, RLIMIT_CORE, INT),)),
        ("prlimit64", (Argument(1, RLIMIT_CORE, INT), Argument(2, 0))),
        # The limits of another process.
        ("prlimit64", (Argument(0, 0),)),
        # Typing into the terminal that the worker was started from.
        *(("ioctl", (Argument(1, request, INT),)) for request in (TIOCSTI, TIOCLINUX)),
    )
