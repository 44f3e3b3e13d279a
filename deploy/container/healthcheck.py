"""The container's health: exit code 0 while the daemon answers at `/healthz`, else 1 with the reason in one line.

Invariant: what decides is that its process and its loop are alive. An outage of the embedding provider or of Chroma is
no illness of the daemon: it waits, and a restart would not help.
"""
# ruff: noqa: INP001 - a script that is copied into the image, no part of a package

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 5.0
"""Less than the timeout of the HEALTHCHECK, so that a slow answer has a reason, too."""


def illness(port: int) -> str:
    """Why the daemon that serves HTTP at a port of this machine is not well; empty when it is."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"no daemon answers at http://127.0.0.1:{port}/healthz: {error}"
    finally:
        connection.close()
    return "" if status == HTTPStatus.OK else f"http://127.0.0.1:{port}/healthz answers with status {status}"


if __name__ == "__main__":
    sys.exit(illness(int(os.environ["INGESTOR_HTTP__PORT"])) or 0)
