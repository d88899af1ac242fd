"""Process isolation without hardware: the worker is confined, the trusted process hardened, keys kept out of reach.

Enters: a level, paths, descriptors, process ids. Leaves: reports of what is in force. Must never see: a plan, an array,
a probe, a mask; `secret` holds bytes and never looks at them. It imports neither NumPy nor torch, since a worker
must be confined before a library starts a thread. It is not a TEE: the kernel and root are trusted (SECURITY.md).

    level      strict, best-effort or off
    report     what is in force in a worker, and the integer that says so on a link
    confine    a worker gives up what it does not need: files first, system calls once it has loaded
    files      the allow-list of files, by landlock
    syscalls   which system calls a sealed worker is refused, and why
    filter     those refusals as a seccomp filter over every thread
    process    the trusted process makes itself unreadable
    secret     memory for keys that other processes and forked children cannot read
    survey     what this machine offers, for people; applies nothing
    kernel     the system calls that the standard library lacks
"""
