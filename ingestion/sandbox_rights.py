"""What a parsing process gives up before it opens a file made by anyone, one function for each kind of right.

Everything is asked of the kernel directly, and cannot be taken back: limits on memory, files and
descriptors (`setrlimit`), root's powers (`capset`), other files (Landlock, Linux 5.13), the network (a
namespace of its own, where the filter in `sandbox_filter` cannot be had). What a kernel or a container does
not offer is left out here, and found out by trying it: see `sandbox_child`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION = 0x20080522
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_DESCRIPTORS = 24
_ROOM = 64 * 2**20
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FIRST_REFER, _FIRST_TRUNCATE, _FIRST_NET, _FIRST_IOCTL, _FIRST_SCOPES = 2, 3, 4, 5, 6
"""The versions of Landlock that brought these in."""
_ROOT = Path(__file__).resolve().parent.parent
_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"),
)

_libc = ctypes.CDLL(None, use_errno=True)


def end_with(parent: int) -> None:
    """Be killed when the parent ends, also when it ended before we asked."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def limit(memory: int) -> None:
    """`memory` in bytes of address space; no file may grow, hardly any may be open, no core is written.
    Raises `ValueError` when that leaves no room to read anything."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if memory < taken + _ROOM:
        least = -(-(taken + _ROOM) // 2**20)
        raise ValueError(f"a limit of {memory // 2**20} MiB leaves no room to read a file; {least} MiB do")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def drop_powers() -> None:
    """No capabilities, and none to be had again by running something."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _libc.capset(header, bytes(24))


def leave_network() -> None:
    """Into a network namespace that leads nowhere, if the kernel lets us have one, with no power over it."""
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        drop_powers()


def leave_files(own: Iterable[Path]) -> None:
    """Only read, and only the interpreter, its libraries, our own readers and `own`; nothing if the kernel
    has no Landlock."""
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    rules = _ruleset(version)
    if rules < 0:
        return
    try:
        for path in (*_readable(), *own):
            with suppress(OSError):
                _allow(rules, path)
        _libc.syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _ruleset(version: int) -> int:
    """Everything that this version can refuse is refused: files, TCP, signals and sockets of others."""
    files = 0x1FFF
    for bit, first in ((13, _FIRST_REFER), (14, _FIRST_TRUNCATE), (15, _FIRST_IOCTL)):
        files |= (version >= first) << bit
    words = [files]
    if version >= _FIRST_NET:
        words.append(0b11)
    if version >= _FIRST_SCOPES:
        words.append(0b11)
    attributes = struct.pack(f"={len(words)}Q", *words)
    made = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    return int(made)


def _allow(rules: int, path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        _libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _readable() -> set[Path]:
    """Not the folder that our code lies in: somebody's data may lie there too."""
    installed = sysconfig.get_paths()
    places = {installed[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix)}
    ours = (_ROOT / "ingestion", _ROOT / "retrieval")
    return {Path(place) for place in (*places, *_SYSTEM)} | set(ours)
