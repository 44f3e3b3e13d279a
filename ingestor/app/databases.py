"""`databases`: the databases of the Chroma server that the settings name."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ingestor.adapters.chroma_databases import ChromaDatabases
from ingestor.adapters.instance import Instance
from ingestor.app.collection import open_client
from ingestor.app.collections import refuse_memory
from ingestor.core.errors import ConfigError
from ingestor.settings import Settings


@dataclass(frozen=True, slots=True)
class Database:
    """A database, for people."""

    name: str
    tenant: str
    is_configured: bool


def listed(settings: Settings, tenant: str | None) -> list[Database]:
    """Every database of a tenant, the configured one unless another is named, by name."""
    of = tenant or settings.chroma.tenant
    with _opened(settings, of) as databases:
        return [Database(name, of, _is_configured(settings, of, name)) for name in databases.names()]


def create(settings: Settings, name: str, tenant: str | None, *, makes_tenant: bool) -> None:
    """Make a database, and with `makes_tenant` the tenant where it is missing. Raises `ConfigError`."""
    with _opened(settings, tenant or settings.chroma.tenant) as databases:
        if makes_tenant:
            databases.make_tenant()
        databases.create(name)


def delete(settings: Settings, name: str, tenant: str | None) -> None:
    """Delete a database that holds no collection and is not the configured one. Raises `ConfigError`."""
    of = tenant or settings.chroma.tenant
    if _is_configured(settings, of, name):
        raise ConfigError(
            f"{name!r} is the configured database", remedy="set another chroma.database before you delete it"
        )
    with _opened(settings, of) as databases:
        databases.delete(name)


def _is_configured(settings: Settings, tenant: str, name: str) -> bool:
    return (tenant, name) == (settings.chroma.tenant, settings.chroma.database)


@contextmanager
def _opened(settings: Settings, tenant: str) -> Iterator[ChromaDatabases]:
    refuse_memory(settings)
    with ExitStack() as stack:
        client = open_client(settings, Instance(settings.data_dir).running(), stack)
        yield ChromaDatabases(client, tenant)
