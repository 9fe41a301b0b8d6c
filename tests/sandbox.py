"""Run a command under two limits of a systemd unit, as systemd itself sets them.

usage: python sandbox.py FAMILY... -- COMMAND...
It may open sockets of these families alone, and has no memory that is writable and executable.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]  # the number of the system call
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # instructions of a seccomp filter
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 97  # EAFNOSUPPORT
NO_NEW_PRIVILEGES, SECCOMP, FILTER, NO_WRITE_EXECUTE = 38, 22, 2, 65  # of prctl


class Program(ctypes.Structure):
    """A filter, as the kernel wants it."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def limit(families: list[int]) -> None:
    """Limit this process and its children."""
    last = len(families) + 2  # of the comparisons comes the refusal, then the permission
    steps = [(LOAD, 0, 0, 0), (EQUAL, 0, last, SOCKET), (LOAD, 0, 0, 16)]
    steps += [(EQUAL, len(families) - i, 0, family) for i, family in enumerate(families)]
    steps += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code)
    program = Program(len(steps), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_WRITE_EXECUTE, 1, 0, 0, 0)  # kernels before 6.3 do not know it
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0), (SECCOMP, FILTER, ctypes.byref(program))):
        if libc.prctl(*arguments, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    at = sys.argv.index("--")
    limit([getattr(socket, name) for name in sys.argv[1:at]])
    os.execv(sys.argv[at + 1], sys.argv[at + 1 :])  # noqa: S606
