"""Options that all commands share, and the settings that they lead to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingestor.settings import Loaded

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Settings file (default: ingestor.toml).", metavar="FILE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TakeOverOption = Annotated[
    bool, typer.Option("--take-over", help="Claim a collection that another data folder owns, with its records.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
FolderArgument = Annotated[
    Path | None, typer.Argument(help="The folder to keep in the collection (default: the setting watch_dir).")
]


def settings_of(
    config: Path | None, *, debug: bool, folder: Path | None = None, is_quiet: bool = False, is_only_read: bool = False
) -> "Loaded":
    """Read the settings, and set up logging as they say; a quiet command tells warnings only.

    A folder that is named to be read and no more takes the place of all sources that the settings name.
    """
    from ingestor.logs import configure_logs
    from ingestor.settings import load_settings

    overrides: dict[str, Any] = {} if folder is None else {"watch_dir": folder}
    if is_only_read and folder is not None:
        overrides["sources"] = ()
    loaded = load_settings(config, overrides)
    level = "debug" if debug else loaded.settings.log.level
    if is_quiet and level == "info":
        level = "warning"
    configure_logs(level, loaded.settings.log.format)
    return loaded
