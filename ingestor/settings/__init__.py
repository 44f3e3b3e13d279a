"""Settings: one tree, the same names in `ingestor.toml`, `.env`, the environment and the secrets folder.

Invariant: every value is validated before anything starts, and is known with the place it came from. A key that no
setting has is an error that names it. Secrets are `SecretStr`: no log, repr or page shows them.

Order, the first one wins: command line, environment, `.env`, secrets folder, `ingestor.toml`, default.
"""

from ingestor.settings.embedding import EmbeddingSettings
from ingestor.settings.groups import MAX_CHUNK_TOKENS, ChromaSettings, ChunkSettings, HttpSettings
from ingestor.settings.loading import Loaded, Setting, load_settings
from ingestor.settings.network import route_to_chroma, route_to_model
from ingestor.settings.origins import CONFIG_FILE
from ingestor.settings.tree import LEDGER_FILE, Settings, SourceSettings, secret_names, setting_fields, setting_names
from ingestor.settings.variables import DOTENV_FILE, SECRETS_DIR, provider_key, variable

__all__ = [
    "CONFIG_FILE",
    "DOTENV_FILE",
    "LEDGER_FILE",
    "MAX_CHUNK_TOKENS",
    "SECRETS_DIR",
    "ChromaSettings",
    "ChunkSettings",
    "EmbeddingSettings",
    "HttpSettings",
    "Loaded",
    "Setting",
    "Settings",
    "SourceSettings",
    "load_settings",
    "provider_key",
    "route_to_chroma",
    "route_to_model",
    "secret_names",
    "setting_fields",
    "setting_names",
    "variable",
]
