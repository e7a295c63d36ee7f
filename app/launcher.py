"""Runs one command bound to the life of the process that started it. Imports only the standard library.

    python -I -S launcher.py PARENT SIGNAL USER NICE COMMAND...

The kernel sends the command SIGNAL when PARENT dies, however it dies, so a supervisor killed with SIGKILL
leaves nothing behind. Linux forgets that wish when a process changes its account, which is why the change
to USER (`-` for none; PostgreSQL refuses root) happens here, before it is made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, number, user, nice, *command = arguments
    if int(nice):
        yield_to_others(int(nice))
    if user != "-":
        _become(user)
    _bind_to_parent(int(parent), int(number))
    # A shell that runs us in the background, and Python itself, leave signals ignored; exec would keep that.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(each, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  (no shell is what we want)


def yield_to_others(nice: int) -> None:
    """This process, with all its threads. Where the kernel groups processes by session (autogroup), niceness
    counts within a session only, and that of the session is a file."""
    lowered = os.nice(nice)
    if sys.platform == "linux":
        for thread in pathlib.Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # It may have ended.
                os.setpriority(os.PRIO_PROCESS, int(thread.name), lowered)
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")


def _become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def _bind_to_parent(parent: int, number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # It died before the kernel knew of our wish.
        sys.exit(f"the process {parent} that started this one is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
