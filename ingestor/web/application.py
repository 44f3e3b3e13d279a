"""The application: the routes of the HTTP interface, put together behind their guard.

A part is a module with a `router`, named in `_PARTS`; what it needs of the daemon it gets as `web.state.Daemon`.
"""

from importlib.metadata import version
from typing import Final

from fastapi import FastAPI

from ingestor.app.live import Live
from ingestor.app.metering import meter_of
from ingestor.app.picture import Pictures
from ingestor.web import api, assets, docs, events, health, login, metrics, page, picture
from ingestor.web.events import Streams
from ingestor.web.faults import explain_errors
from ingestor.web.guard import Guard
from ingestor.web.overview import Rate
from ingestor.web.ticket import Tickets

_PARTS: Final = (health, metrics, api, events, docs, login, assets, page, picture)


def application_of(live: Live, streams: Streams) -> Guard:
    """The application of one daemon; `streams` are those of its events, for whoever ends them."""
    http = live.settings.http
    tickets = Tickets(http.token) if http.token is not None else None
    application = FastAPI(title="ingestor", version=version("ingestor"), openapi_url=None)
    application.state.live = live
    application.state.streams = streams
    application.state.tickets = tickets
    application.state.meter = meter_of(live.settings, lambda: live.lines, lambda: not live.faults())
    application.state.pictures = Pictures(live)
    application.state.rate = Rate()
    explain_errors(application)
    for part in _PARTS:
        application.include_router(part.router)
    return Guard(application, http, tickets)
