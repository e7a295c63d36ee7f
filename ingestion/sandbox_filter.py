"""The system calls that a process reading one file may no longer make: a seccomp filter.

Refused are those that reach beyond the process: sockets, other processes, files opened to be written or
changed by name, shared memory that outlives it, and what only administrators of a kernel need. A refused
call fails with EPERM, so that a library which merely tries goes on. Only for x86-64: elsewhere nothing is
installed.

Sources: linux/filter.h, linux/seccomp.h, linux/audit.h, and the table of syscalls in arch/x86.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_AUDIT_X86_64 = 0xC000003E
_X32 = 0x40000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_NETWORK = (41, 42, 43, 49, 50, 53, 288)
"""socket, connect, accept, bind, listen, socketpair, accept4"""
_PROCESSES = (57, 58, 59, 101, 200, 310, 311, 312, 322, 424, 434, 438, 440, 448)
"""fork, vfork, execve, ptrace, tkill, process_vm_readv and _writev, kcmp, execveat, pidfd_send_signal,
pidfd_open, pidfd_getfd, process_madvise, process_mrelease"""
_SCHEDULING = (141, 142, 144, 203, 251, 314)
"""setpriority, sched_setparam, sched_setscheduler, sched_setaffinity, ioprio_set, sched_setattr"""
_NAMES = (
    *(76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 132, 133, 188, 189, 190, 197, 198, 199),
    *(235, 258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 285, 316, 452),
)
"""truncate, ftruncate, rename, mkdir, rmdir, creat, link, unlink, symlink, chmod, fchmod, chown, fchown,
lchown, utime, mknod, setxattr and removexattr in three forms, utimes, mkdirat, mknodat, fchownat, futimesat,
unlinkat, renameat, linkat, symlinkat, fchmodat, utimensat, fallocate, renameat2, fchmodat2"""
_LASTING = (29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 240, 241, 242, 243, 244, 245, 319, 447)
"""SysV shared memory, semaphores and messages, POSIX message queues, memfd_create, memfd_secret"""
_KERNEL = (
    *(103, 139, 155, 156, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 227),
    *(246, 248, 249, 250, 253, 254, 272, 294, 298, 300, 303, 304, 305, 308, 313, 320, 321, 323, 425, 426),
    *(427, 428, 429, 430, 431, 432, 433, 442),
)
"""syslog to mount and reboot, modules, keys, inotify, unshare, setns, perf, fanotify, open_by_handle_at,
kexec, bpf, userfaultfd, io_uring, the new mount calls"""
_UNKNOWN = (435, 437)
"""clone3 and openat2 take their flags through memory, where a filter cannot look: callers fall back."""
_OPEN, _OPENAT, _CLONE, _KILL, _TGKILL, _PRLIMIT = 2, 257, 56, 62, 234, 302
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0o20000000
_CLONE_THREAD = 0x10000


def install() -> bool:
    """Filter this process and what it may start; whether the kernel took the filter."""
    if platform.machine() != "x86_64":
        return False
    program = _EVERYBODY + _for(os.getpid())
    text = ctypes.create_string_buffer(program, len(program))
    filled = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    return bool(ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _MODE_FILTER, filled, 0, 0) == 0)


def _load(place: int) -> bytes:
    return _line(_LOAD, 0, 0, place)


def _answer(value: int) -> bytes:
    return _line(_RETURN, 0, 0, value)


def _line(code: int, yes: int, no: int, value: int) -> bytes:
    """An instruction: how many to skip when its test says yes, and when it says no."""
    return struct.pack("=HBBI", code, yes, no, value)


_REFUSE, _MISSING, _PASS = (_answer(v) for v in (_ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS, _ALLOW))


def _argument(number: int, place: int, test: bytes) -> bytes:
    """For this call, refuse or allow by the lower half of an argument: the test skips the refusal or not."""
    look = _load(_ARGUMENTS + 8 * place)
    return b"".join((_line(_EQUAL, 0, 4, number), look, test, _REFUSE, _PASS))


def _everybody() -> bytes:
    """Each test either answers or lets the next one look at the same number."""
    refused = (*_NETWORK, *_PROCESSES, *_SCHEDULING, *_NAMES, *_LASTING, *_KERNEL)
    lines = [
        *(_load(_ARCHITECTURE), _line(_EQUAL, 1, 0, _AUDIT_X86_64), _REFUSE),
        *(_load(_NUMBER), _line(_AT_LEAST, 0, 1, _X32), _REFUSE),
        *(_line(_EQUAL, 0, 1, number) + _REFUSE for number in refused),
        *(_line(_EQUAL, 0, 1, number) + _MISSING for number in _UNKNOWN),
        _argument(_OPEN, 1, _line(_ANY_OF, 0, 1, _WRITING)),
        _argument(_OPENAT, 2, _line(_ANY_OF, 0, 1, _WRITING)),
        _argument(_CLONE, 0, _line(_ANY_OF, 1, 0, _CLONE_THREAD)),
        _argument(_PRLIMIT, 0, _line(_EQUAL, 1, 0, 0)),
    ]
    return b"".join(lines)


_EVERYBODY = _everybody()


def _for(process: int) -> bytes:
    """It may signal itself, which is how a library aborts."""
    itself = _line(_EQUAL, 1, 0, process)
    return _argument(_KILL, 0, itself) + _argument(_TGKILL, 0, itself) + _PASS
