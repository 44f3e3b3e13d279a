"""`ingestor config`: the settings in force, and where each came from."""

from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, print_json, shown
from ingestor.language import translated


def config(config: ConfigOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Print every setting in force and where it came from; secrets are masked."""
    with errors_explained(debug=debug):
        rows = settings_of(config, debug=debug).rows()
        if as_json:
            print_json({row.name: {"value": row.value, "origin": row.origin} for row in rows})
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("setting", "value", "from"):
            table.add_column(heading)
        for row in rows:
            table.add_row(row.name, shown(row.value), shown(translated(row.origin)))
        out.print(table)
