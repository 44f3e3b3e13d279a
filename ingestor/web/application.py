"""The application: the routes of the HTTP interface, put together behind their guard."""

from importlib.metadata import version

from fastapi import FastAPI

from ingestor.app.live import Live
from ingestor.app.picture import Pictures
from ingestor.web import api, health, page, picture
from ingestor.web.faults import explain_errors
from ingestor.web.overview import Rate


def application_of(live: Live) -> FastAPI:
    """The application of one daemon."""
    application = FastAPI(title="ingestor", version=version("ingestor"), docs_url=None, redoc_url=None)
    application.state.live = live
    application.state.pictures = Pictures(live)
    application.state.rate = Rate()
    explain_errors(application)
    for part in (health, api, page, picture):
        application.include_router(part.router)
    return application
