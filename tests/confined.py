"""Runs a command under what a systemd unit forbids its processes, where no systemd runs: the unit's seccomp filters.

    python tests/confined.py UNIT COMMAND [ARGUMENT]...

Invariant: what is forbidden is read from the unit, and answered as systemd answers it: `SystemCallFilter` with
`SystemCallErrorNumber`, `MemoryDenyWriteExecute`, `RestrictAddressFamilies` and `RestrictNamespaces`. A unit without
one of them, or a group of calls that systemd does not know, is an error. Capabilities are the caller's affair.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF0000
_FAIL = 0x00050000
"""Plus the error number."""
_EQUAL = 4
_MASKED_EQUAL = 7
_WRITE_EXECUTE = 0b110
_EXECUTE = 0b100
_SHM_EXEC = 0o100000
_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_FAMILIES = range(46)
"""Every address family there is."""


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Filter:
    """One seccomp filter; `otherwise` is the answer to calls without a rule."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._library.seccomp_init.argtypes = [ctypes.c_uint32]
        self._library.seccomp_load.argtypes = [ctypes.c_void_p]
        self._library.seccomp_rule_add_array.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_void_p,
        ]
        self._context = self._library.seccomp_init(otherwise)

    def rule(self, call: str, action: int, *comparisons: _Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # a call of another processor
        array = (_Comparison * len(comparisons))(*comparisons)
        self._check(self._library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array))

    def load(self) -> None:
        self._check(self._library.seccomp_load(self._context))

    def _check(self, result: int) -> None:
        if result != 0:
            raise OSError(-result, os.strerror(-result))


def is_available() -> bool:
    """Whether this machine has what it takes to confine a process."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def values(unit: str, name: str) -> list[str]:
    """What a unit sets a name to, line by line; at least one."""
    found = [line.partition("=")[2] for line in unit.splitlines() if line.partition("=")[0] == name]
    if not found:
        message = f"the unit does not set {name}"
        raise ValueError(message)
    return found


def calls(group: str) -> Iterator[str]:
    """The system calls of a group, as the systemd of this machine has it."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            yield from calls(word)
        elif word and not word.startswith("#"):
            yield word


def allowed_calls(unit: str) -> set[str]:
    """What is left after all `SystemCallFilter` lines, of which the first allows and one with a tilde takes away."""
    allowed = set(calls("@default"))
    for line in values(unit, "SystemCallFilter"):
        named = {call for group in line.removeprefix("~").split() for call in calls(group)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def confine(unit: str) -> None:
    """Take from this process, for good, what the unit forbids."""
    (error_name,) = values(unit, "SystemCallErrorNumber")
    denied = _FAIL | getattr(errno, error_name)
    listed = _Filter(denied)
    for call in allowed_calls(unit):
        listed.rule(call, _ALLOW)

    barred = _Filter(_ALLOW)
    if values(unit, "MemoryDenyWriteExecute") == ["yes"]:
        eperm = _FAIL | errno.EPERM
        barred.rule("mmap", eperm, _Comparison(2, _MASKED_EQUAL, _WRITE_EXECUTE, _WRITE_EXECUTE))
        barred.rule("mprotect", eperm, _Comparison(2, _MASKED_EQUAL, _EXECUTE, _EXECUTE))
        barred.rule("pkey_mprotect", eperm, _Comparison(2, _MASKED_EQUAL, _EXECUTE, _EXECUTE))
        barred.rule("shmat", eperm, _Comparison(2, _MASKED_EQUAL, _SHM_EXEC, _SHM_EXEC))
    if values(unit, "RestrictNamespaces") == ["yes"]:
        barred.rule("clone3", _FAIL | errno.ENOSYS)  # its flags lie in memory, where no filter sees them
        for flag in _NAMESPACES:
            barred.rule("clone", _FAIL | errno.EPERM, _Comparison(0, _MASKED_EQUAL, flag, flag))
            barred.rule("unshare", _FAIL | errno.EPERM, _Comparison(0, _MASKED_EQUAL, flag, flag))
        barred.rule("setns", _FAIL | errno.EPERM)
    (families,) = values(unit, "RestrictAddressFamilies")
    for family in set(_FAMILIES) - {getattr(socket, name) for name in families.split()}:
        barred.rule("socket", _FAIL | errno.EAFNOSUPPORT, _Comparison(0, _EQUAL, family, 0))

    barred.load()
    listed.load()


def main(unit_file: str, *command: str) -> NoReturn:
    """Become the command, confined."""
    confine(Path(unit_file).read_text(encoding="utf-8"))
    os.execv(command[0], command)  # noqa: S606 - the test's own command, and no shell


if __name__ == "__main__":
    main(*sys.argv[1:])
