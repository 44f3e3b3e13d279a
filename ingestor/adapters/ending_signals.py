"""The signals that tell a process to end in order."""

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, and SIGHUP for a terminal or a connection that is closed.

    SIGHUP is left out where it is ignored: `nohup` was meant to let the process outlive its terminal.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, signal.SIGHUP)
