"""`ingestor databases`: the databases of a Chroma server, which hold its collections."""

from dataclasses import asdict
from typing import Annotated

import typer

from ingestor.cli.chosen import YesOption, confirm, group_only, tell
from ingestor.cli.options import ConfigOption, DebugOption, JsonOption, settings_of
from ingestor.cli.output import errors_explained, out, print_json, shown

HELP = "List the databases of the Chroma server; make or delete one."

app = typer.Typer(rich_markup_mode=None)
NameArgument = Annotated[str, typer.Argument(help="Name of the database.")]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Tenant (default: the configured one).", metavar="NAME")
]


@app.callback(invoke_without_command=True)
def databases(
    context: typer.Context,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the databases of the Chroma server; make or delete one. It lists them without a command."""
    with errors_explained(debug=debug):
        if group_only(context, "databases", config, tenant, as_json, debug):
            return
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import databases as work

        listed = work.listed(loaded.settings, tenant)
        if as_json:
            print_json([asdict(database) for database in listed])
        for database in listed if not as_json else ():
            out.print_verbatim(f"{'*' if database.is_configured else ' '} {shown(database.name)}")


def create(  # noqa: PLR0913, PLR0917 - the options of the command
    name: NameArgument,
    tenant: TenantOption = None,
    make_tenant: Annotated[bool, typer.Option("--make-tenant", help="Make the tenant where it is missing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a database, and the tenant that it belongs to if that is asked for."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        from ingestor.app import databases as work

        work.create(loaded.settings, name, tenant, makes_tenant=make_tenant)
        tell({"created": name}, f"made the database {name}", as_json=as_json)


def delete(  # noqa: PLR0913, PLR0917 - the options of the command
    name: NameArgument,
    tenant: TenantOption = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete a database that holds no collection; asks first."""
    with errors_explained(debug=debug):
        loaded = settings_of(config, debug=debug, is_quiet=True)
        confirm(f"delete the database {name}?", is_agreed=yes)
        from ingestor.app import databases as work

        work.delete(loaded.settings, name, tenant)
        tell({"deleted": name}, f"deleted the database {name}", as_json=as_json)


for _command in (create, delete):
    app.command(_command.__name__, short_help=_command.__doc__)(_command)
