"""systemd's notify socket: tells the service manager that the daemon is ready, alive, or ending.

Protocol: https://www.freedesktop.org/software/systemd/man/sd_notify.html. Invariant: without a socket in the
environment, nothing happens; a socket that does not answer never stops the daemon.
"""

import os
import socket

import structlog

_log = structlog.get_logger(__name__)


class Notifier:
    """Sends states to the socket that the environment names."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(watchdog_us) / 1_000_000 if watchdog_us.isdecimal() and is_ours else None
        """Within how many seconds systemd wants to hear that the daemon lives; None when it does not care."""

    def ready(self) -> None:
        """The daemon serves."""
        self._send("READY=1")

    def alive(self) -> None:
        """The daemon's loop turns."""
        self._send("WATCHDOG=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte of Linux' abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(state.encode(), address)
        except OSError as error:
            _log.warning("notify.failed", socket=self._address, reason=str(error))
