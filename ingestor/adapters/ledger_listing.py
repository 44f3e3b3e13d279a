"""The part of the ledger that lists documents for people: filters and pages are SQL, whatever number there is.

Invariant: a path is listed once, with what the queue says of it where it is queued.
"""

import os
import sqlite3
from collections.abc import Callable

import sqlalchemy as sa

from ingestor.core.listing import State, Wanted

_OF_TYPE = "ingestor_is_of_type"


def matching(
    connection: sa.Connection, documents: sa.Table, queue: sa.Table, wanted: Wanted, is_of_type: Callable[[str], bool]
) -> sa.Subquery:
    """Rows of what is wanted: path, document_id, chunks, size_bytes, mtime_ns, problem, is_queued.

    `is_of_type` tells whether the file of a path is of the type wanted; it is called where one is.
    """
    known = sa.select(
        documents.c.path,
        documents.c.document_id,
        documents.c.chunks,
        documents.c.size_bytes,
        documents.c.mtime_ns,
        sa.func.coalesce(queue.c.problem, documents.c.problem).label("problem"),
        queue.c.path.is_not(None).label("is_queued"),
    ).select_from(documents.outerjoin(queue, queue.c.path == documents.c.path))
    unknown = sa.select(
        queue.c.path,
        sa.null().label("document_id"),
        sa.literal(0).label("chunks"),
        sa.null().label("size_bytes"),
        sa.null().label("mtime_ns"),
        queue.c.problem,
        sa.true().label("is_queued"),
    ).where(queue.c.path.not_in(sa.select(documents.c.path)))
    rows = sa.union_all(known, unknown).subquery()
    conditions = _conditions(rows, wanted)
    if wanted.file_type:
        plain = connection.connection.driver_connection
        if isinstance(plain, sqlite3.Connection):
            plain.create_function(_OF_TYPE, 1, lambda path: is_of_type(os.fsdecode(path)))
        conditions.append(sa.func.ingestor_is_of_type(rows.c.path) == sa.literal(1))
    return sa.select(rows).where(*conditions).subquery()


def _conditions(rows: sa.Subquery, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.folder:
        found.append(at_or_below(rows.c.path, wanted.folder))
    if wanted.text:
        found.append(sa.cast(rows.c.path, sa.Text).contains(wanted.text, autoescape=True))
    is_faulty = sa.func.coalesce(service_of(rows.c.problem) == "", sa.false())
    match wanted.state:
        case State.PROBLEM:
            found.append(is_faulty)
        case State.QUEUED:
            found += [sa.not_(is_faulty), rows.c.is_queued]
        case State.INDEXED:
            found += [sa.not_(is_faulty), sa.not_(rows.c.is_queued)]
    return found


def service_of(problem: sa.ColumnElement[str | None]) -> sa.ColumnElement[str | None]:
    """What is waited for where something failed: "" for nothing but the document, NULL where nothing failed."""
    return sa.case((problem.is_not(None), sa.func.coalesce(sa.func.json_extract(problem, "$.service"), "")))


def at_or_below(column: sa.ColumnElement[bytes], folder: str) -> sa.ColumnElement[bool]:
    """Whether a path is that of a folder, or lies in it."""
    # "0" follows "/" in ASCII: everything that starts with "folder/" lies between both.
    encoded = os.fsencode(folder)
    return sa.or_(column == encoded, sa.and_(column >= encoded + b"/", column < encoded + b"0"))
