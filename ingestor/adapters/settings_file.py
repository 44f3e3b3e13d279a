"""The settings file, made, and changed as its owner would: one value, and not a comment or blank more.

Invariant: whoever reads the file sees it as it was or as it becomes, also after a crash.
"""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingestor.adapters.durability import sync_folder
from ingestor.core.errors import ConfigError


def with_setting(file: Path, places: Sequence[tuple[str | int, ...]], value: str) -> str:
    """The text of a TOML file with another value in some places, each a way through tables and arrays.

    What is missing of a table is added.

    A file that does not exist is an empty one. Raises `ConfigError` for one that cannot be read.
    """
    import tomlkit  # noqa: PLC0415 - needed for nothing but this
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - as above

    try:
        document = tomlkit.parse(file.read_bytes().decode()) if file.exists() else tomlkit.document()
        for *groups, leaf in places:
            table: Any = document
            for group in groups:
                if isinstance(group, str) and group not in table:
                    table[group] = tomlkit.table()
                table = table[group]
            table[leaf] = value
        return tomlkit.dumps(document)
    except (OSError, UnicodeDecodeError, TOMLKitError, TypeError) as error:
        raise ConfigError(f"the settings file {file} cannot be changed: {error}") from error


def replace_settings(file: Path, text: str, *, is_new: bool = False) -> None:
    """Let the file hold another text; it keeps its mode, and a symbolic link stays one. Raises `OSError`.

    One that has to be new is never written over, whoever makes it meanwhile: then it raises `FileExistsError`.
    """
    target = file.resolve()
    descriptor, fresh = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, not a path
            opened.write(text.encode())
            if target.exists():
                held = target.stat()
                os.fchmod(opened.fileno(), held.st_mode & 0o7777)
                with contextlib.suppress(PermissionError):  # only root may give a file away: then it is its writer's
                    os.fchown(opened.fileno(), held.st_uid, held.st_gid)
            else:
                os.fchmod(opened.fileno(), 0o644)
            opened.flush()
            os.fsync(opened.fileno())
        if is_new:
            target.hardlink_to(fresh)
            Path(fresh).unlink()
        else:
            Path(fresh).replace(target)
        sync_folder(target.parent)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
