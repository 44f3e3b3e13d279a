"""The application: the routes of the HTTP interface, put together behind their guard."""

from importlib.metadata import version

from fastapi import FastAPI

from ingestor.app.live import Live
from ingestor.web import api, health
from ingestor.web.faults import explain_errors


def application_of(live: Live) -> FastAPI:
    """The application of one daemon."""
    application = FastAPI(title="ingestor", version=version("ingestor"), docs_url=None, redoc_url=None)
    application.state.live = live
    explain_errors(application)
    for part in (health, api):
        application.include_router(part.router)
    return application
