"""The container's health: exit code 0 while a daemon works on the data folder, else 1 with the reason in one line.

Invariant: what decides is the lock that `ingestor status` looks at, which the kernel takes from a dead daemon. An
outage of the embedding provider or of Chroma is no illness of the daemon: it waits, and a restart would not help.
"""
# ruff: noqa: INP001 - a script that is copied into the image, no part of a package

import json
import subprocess
import sys
from pathlib import Path

TIMEOUT_SECONDS = 25.0
"""Less than the timeout of the HEALTHCHECK, so that a slow answer has a reason, too."""


def illness(command: Path) -> str:
    """Why the daemon is not well; empty when it is. `command` is the `ingestor` command."""
    try:
        asked = subprocess.run(  # noqa: S603 - the command of our own environment, and no word from outside
            [command, "status", "--json"], capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`ingestor status` cannot be had: {error}"
    if asked.returncode != 0:
        return asked.stderr.strip() or f"`ingestor status` ended with code {asked.returncode}"
    daemon = json.loads(asked.stdout)["daemon"]
    if daemon is None:
        return "no daemon is running"
    if daemon["command"] != "run":
        return f"`ingestor {daemon['command']}` is running, and no daemon"
    return ""


if __name__ == "__main__":
    sys.exit(illness(Path(sys.executable).with_name("ingestor")) or 0)
