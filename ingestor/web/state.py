"""State: what the routes know of the running daemon."""

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from ingestor.app.live import Live


async def _live_of(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


Daemon: TypeAlias = Annotated[Live, Depends(_live_of)]
"""As the type of a parameter: the daemon that this server is part of."""
