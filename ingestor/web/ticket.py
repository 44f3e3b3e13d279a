"""Ticket: what a browser holds after it has shown the token once.

Invariant: a ticket is no token and leads to none; it ends by itself, and with the token that it was made with.
"""

import hmac
import time
from hashlib import sha256
from typing import Final

from pydantic import SecretStr

TICKET_SECONDS: Final = 30 * 24 * 3600
_PURPOSE: Final = "ingestor: a browser may ask until "


class Tickets:
    """Makes tickets of one token, and tells them from what others have made up."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token.get_secret_value().encode()

    def is_token(self, shown: str) -> bool:
        """Whether what was shown is the token itself."""
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._token)

    def issue(self) -> str:
        """A new ticket."""
        until = str(int(time.time()) + TICKET_SECONDS)
        return f"{until}.{self._seal(until)}"

    def is_ticket(self, shown: str) -> bool:
        """Whether what was shown is a ticket of this token that has not ended yet."""
        until, _, seal = shown.partition(".")
        is_ours = hmac.compare_digest(seal.encode("utf-8", "surrogateescape"), self._seal(until).encode())
        return is_ours and time.time() < int(until)

    def _seal(self, until: str) -> str:
        message = (_PURPOSE + until).encode("utf-8", "surrogateescape")
        return hmac.new(self._token, message, sha256).hexdigest()
