"""Variables: what the environment, `.env` and the folders of secrets hold.

Invariant: a file of a folder of secrets that is not for us is not even opened.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.core.profiles import PROVIDERS

PREFIX = "INGESTOR_"
DELIMITER = "__"
DOTENV_FILE = ".env"
SECRETS_DIR = "/run/secrets"
CONTROLS = frozenset({"INGESTOR_CONFIG", "INGESTOR_SECRETS_DIR"})
"""Variables that say where settings are, and are none themselves."""
KEY_FALLBACKS = {profile.provider: profile.key_variable for profile in PROVIDERS.values() if profile.key_variable}
VARIABLE_LABELS = ("environment", f"{DOTENV_FILE} file", "secrets folder")
"""What people call the places that hold variables, the first to be looked at first."""
_MAX_SECRET_BYTES = 1 << 16
_MAX_SHOWN_CHARACTERS = 300


def variable(name: str) -> str:
    """Environment variable of a dotted name."""
    return PREFIX + name.replace(".", DELIMITER).upper()


def variable_sources(tree: type[BaseSettings] = BaseSettings) -> dict[str, EnvSettingsSource]:
    """All places that hold variables, by label; `tree` has the settings that they are read for.

    Raises `ConfigError` for what cannot be read.
    """
    return dict(zip(VARIABLE_LABELS, (EnvSettingsSource(tree), _dotenv(tree), _SecretFiles(tree)), strict=True))


def provider_keys(source: EnvSettingsSource) -> dict[str, str]:
    """The keys that providers' own variables hold, by variable."""
    return {name: value for name in KEY_FALLBACKS.values() if (value := source.env_vars.get(name.lower()))}


def provider_key(provider: str) -> SecretStr | None:
    """The key that a provider's own variable holds, wherever variables are set; None when there is none."""
    name = KEY_FALLBACKS.get(provider, "")
    found = (keys[name] for source in variable_sources().values() if name in (keys := provider_keys(source)))
    return next(map(SecretStr, found), None)


def _dotenv(tree: type[BaseSettings]) -> DotEnvSettingsSource:
    # Where the current folder may not be searched, it holds no settings for us.
    file = DOTENV_FILE if os.access(DOTENV_FILE, os.R_OK) else None
    try:
        return DotEnvSettingsSource(tree, env_file=file, dotenv_filtering="only_existing")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the file {DOTENV_FILE} cannot be read: {reason}"
        raise ConfigError(message, remedy="it must be readable, in UTF-8, and hold lines such as NAME=value") from error


class _SecretFiles(EnvSettingsSource):
    """Files named as variables, in the secrets folder and in the one of systemd, which goes before it.

    What is not for us is not even opened: others have secrets in the same folder.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for name in ("INGESTOR_SECRETS_DIR", "CREDENTIALS_DIRECTORY"):
            folder = os.environ.get(name) or (SECRETS_DIR if name in CONTROLS and name not in os.environ else "")
            for file in _secret_files(Path(folder), name) if folder else ():
                found[file.name.lower()] = _secret(file)
        return found


def _secret_files(folder: Path, named_by: str) -> list[Path]:
    """The files of a folder that are for us; none when it is missing."""
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        if named_by not in os.environ:
            return []
        message = f"the secrets folder {legible(str(folder))} ({named_by}) cannot be read: {error.strerror}"
        raise ConfigError(message, remedy="check that it is a folder that ingestor may list") from error
    ours = KEY_FALLBACKS.values()
    return [file for file in files if file.name.upper().startswith(PREFIX) or file.name.upper() in ours]


def _secret(file: Path) -> str:
    remedy = "it must be a readable text file that holds nothing but the value"
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_SECRET_BYTES + 1)
        if len(raw) > _MAX_SECRET_BYTES:
            raise ConfigError(f"the secret {file} has more than {_MAX_SECRET_BYTES:,} bytes", remedy=remedy)
        return raw.decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the secret {file} cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError:
        raise ConfigError(f"the secret {file} is no UTF-8", remedy=remedy) from None


def legible(name: str) -> str:
    """A name that a user has made up, so that it fits into a line."""
    return escaped(name if len(name) <= _MAX_SHOWN_CHARACTERS else name[: _MAX_SHOWN_CHARACTERS - 1] + "…")
