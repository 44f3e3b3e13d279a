"""`ingestor mcp`: the collection as tools of a language model."""

from ingestor.cli.options import ConfigOption, DebugOption, settings_of
from ingestor.cli.output import errors_explained
from ingestor.core.errors import ConfigError


def mcp(
    config: ConfigOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve search, get_document and status to a language model (Model Context Protocol)."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        import asyncio

        try:
            from ingestor.mcp import server_of
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("mcp"):
                raise
            raise ConfigError("`ingestor mcp` needs the package mcp", remedy="pip install 'ingestor[mcp]'") from error

        server = server_of(loaded.settings)
        asyncio.run(server.run_stdio_async())
