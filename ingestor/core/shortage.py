"""Shortage: what the machine has run out of, told from the error of a system call.

Invariant: a shortage passes; it is never taken for a wrong setting, which only people can mend.
"""

import errno

from ingestor.core.errors import ServiceUnavailable

_DESCRIPTORS = "raise the limit of open files (`ulimit -n`, or LimitNOFILE= of the service), then start again"
_DISK = "free disk space, then start again: what was indexed is kept"
_REMEDIES = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOMEM: "free memory, then start again: what was indexed is kept",
    errno.EIO: "see whether the disk is well (dmesg, smartctl), then start again",
}


def shortage(error: OSError) -> ServiceUnavailable | None:
    """The error in the product's own words; None when nothing is short, and something else is wrong."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    message = f"the machine is short of something: {error.strerror}"
    if error.filename:
        message = f"the machine is short of something, at {error.filename}: {error.strerror}"
    return ServiceUnavailable(message, remedy=remedy)
