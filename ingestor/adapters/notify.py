"""systemd's notify socket: tells the service manager that the daemon is ready, alive, or ending.

Protocol: https://www.freedesktop.org/software/systemd/man/sd_notify.html. Invariant: without a socket in the
environment, nothing happens; a socket that does not answer, or whose queue is full, never stops the daemon. What did
not fit is sent with what comes next, so that a start is not lost.
"""

import os
import socket

import structlog

_KIND = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK

_log = structlog.get_logger(__name__)


class Notifier:
    """Sends states to the socket that the environment names."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._owed: dict[str, str] = {}
        """What is to be sent, by its name: of several values of one, the last is what holds."""
        self._is_delayed = False
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(watchdog_us) / 1_000_000 if watchdog_us.isdecimal() and is_ours else None
        """Within how many seconds systemd wants to hear that the daemon lives; None when it does not care."""

    def ready(self) -> None:
        """The daemon serves."""
        self._send("READY", "1")

    def alive(self) -> None:
        """The daemon's loop turns."""
        self._send("WATCHDOG", "1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        sentence = " ".join(sentence.split())  # each further line would be a state of its own
        if sentence != self._status:
            self._status = sentence
            self._send("STATUS", sentence)

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING", "1")

    def _send(self, name: str, value: str) -> None:
        if not self._address:
            return
        self._owed[name] = value
        # "@" stands for the NUL byte of Linux' abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, _KIND) as sender:
                sender.sendto("\n".join(f"{each}={owed}" for each, owed in self._owed.items()).encode(), address)
        except BlockingIOError:
            if not self._is_delayed:
                _log.warning("notify.delayed", socket=self._address, reason="the service manager does not read")
            self._is_delayed = True
            return
        except OSError as error:
            _log.warning("notify.failed", socket=self._address, reason=str(error))
        self._is_delayed = False
        self._owed.clear()
