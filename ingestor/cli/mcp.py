"""`ingestor mcp`: the collection as tools of a language model."""

from typing import Annotated

import typer

from ingestor.cli.options import ConfigOption, DebugOption, settings_of
from ingestor.cli.output import errors_explained
from ingestor.core.errors import ConfigError


def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP at http.host, instead of standard input and output.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of --http; 0: one that is free.", metavar="N")
    ] = 8766,
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve search, get_document and status to a language model (Model Context Protocol)."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=not http)
        import asyncio

        try:
            from ingestor.mcp import serve_http, server_of
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("mcp"):
                raise
            raise ConfigError("`ingestor mcp` needs the package mcp", remedy="pip install 'ingestor[mcp]'") from error

        if http:
            asyncio.run(serve_http(loaded.settings, port))
        else:
            import signal

            # A thread waits for the next line of standard input, and Python would wait for the thread; nothing that
            # these tools do needs to be ended in order.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            asyncio.run(server_of(loaded.settings).run_stdio_async())
