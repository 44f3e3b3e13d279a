"""Standard streams that whoever started the command has closed, as `2>&-` does."""

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def stand_in_for_closed_streams() -> None:
    """Open the null device in place of each standard stream that is closed; call it before any file is opened.

    A file that is opened while a standard descriptor is closed gets its number: whatever prints to standard error, a
    library of C or a child, would write into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # It is the lowest number that is free, for the streams below it are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - the only form of that function
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115 - for the life of the process
