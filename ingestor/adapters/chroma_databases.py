"""The databases of a Chroma server and the tenants that they belong to, as far as its client offers their lives.

Invariant: a database is made only for a tenant that there is (Chroma takes any, and nobody can open it then), and
deleted only while it holds no collection. Tenants can be made, and neither listed nor deleted.
"""

from typing import TYPE_CHECKING

from ingestor.adapters.chroma_faults import translation
from ingestor.core.errors import ConfigError, ServiceUnavailable

if TYPE_CHECKING:
    from chromadb.api import AdminAPI, ClientAPI

_PAGE_DATABASES = 100
_SHORTEST_NAME = 3


class ChromaDatabases:
    """The databases of one tenant behind a client; every method may raise `ServiceUnavailable`, `ConfigError`."""

    def __init__(self, client: "ClientAPI", tenant: str) -> None:
        admin: AdminAPI | None = getattr(client, "_admin_client", None)
        if admin is None:
            raise ConfigError(
                "this version of chromadb keeps its databases out of reach",
                remedy="install the version of chromadb that this release was tested with",
            )
        self._client = client
        self._admin = admin
        self._tenant = tenant

    def names(self) -> list[str]:
        """Every database of the tenant, by name."""
        self._refuse_missing_tenant()
        found: list[str] = []
        with translation("listing the databases", ServiceUnavailable):
            while page := self._admin.list_databases(_PAGE_DATABASES, len(found), self._tenant):
                found += [database["name"] for database in page]
        return sorted(found)

    def make_tenant(self) -> None:
        """Make the tenant, unless it is there."""
        if not self._has_tenant():
            _refuse_short("tenant", self._tenant)
            with translation(f"making the tenant {self._tenant!r}", ConfigError):
                self._admin.create_tenant(self._tenant)

    def create(self, name: str) -> None:
        """Make a database. Raises `ConfigError` for a name that is taken or none, and for a tenant that is missing."""
        _refuse_short("database", name)
        if name in self.names():
            raise ConfigError(f"there is a database {name!r} already", remedy="choose another name")
        with translation(f"making the database {name!r}", ConfigError):
            self._admin.create_database(name, self._tenant)

    def delete(self, name: str) -> None:
        """Delete a database without collections. Raises `ConfigError` for one that holds some or is not there."""
        if name not in self.names():
            raise ConfigError(
                f"there is no database {name!r}", remedy="`ingestor databases` lists those that there are"
            )
        with translation(f"looking into the database {name!r}", ServiceUnavailable):
            self._client.set_tenant(self._tenant, name)
            count = self._client.count_collections()
        if count:
            raise ConfigError(
                f"the database {name!r} holds {count} collections",
                remedy=f"delete these first: INGESTOR_CHROMA__DATABASE={name} ingestor collections",
            )
        with translation(f"deleting the database {name!r}", ConfigError):
            self._admin.delete_database(name, self._tenant)

    def _has_tenant(self) -> bool:
        from chromadb.errors import NotFoundError  # noqa: PLC0415 - the client has imported chromadb already

        with translation(f"looking for the tenant {self._tenant!r}", ServiceUnavailable):
            try:
                self._admin.get_tenant(self._tenant)
            except NotFoundError:
                return False
        return True

    def _refuse_missing_tenant(self) -> None:
        if not self._has_tenant():
            raise ConfigError(
                f"there is no tenant {self._tenant!r}",
                remedy="name another with --tenant, or make it with `ingestor databases create --make-tenant`",
            )


def _refuse_short(kind: str, name: str) -> None:
    if len(name) < _SHORTEST_NAME or not name.isprintable():
        raise ConfigError(
            f"no {kind} can be called {name!r}", remedy=f"a name has at least {_SHORTEST_NAME} characters"
        )
