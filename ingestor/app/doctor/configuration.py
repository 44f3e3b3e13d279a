"""Check: where the settings come from, and what of them is at odds with itself or unsafe."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ingestor.app.doctor.premises import Premises
from ingestor.app.embedder import allowance_of
from ingestor.core.diagnosing import Finding, failure, hint, warning, well
from ingestor.core.errors import ConfigError
from ingestor.core.network import is_loopback
from ingestor.core.profiles import PROVIDERS
from ingestor.settings import CONFIG_FILE, DOTENV_FILE, EmbeddingSettings, secret_names, variable

_NAME = "settings"


def check(premises: Premises) -> Sequence[Finding]:
    """The settings themselves were read before: what was wrong with one has ended the examination."""
    origins = premises.loaded.origins
    places = list(dict.fromkeys(origins.values()))
    told = f"read from {', '.join(places)}" if places else "all as by default"
    found = [well(_NAME, f"the settings are {told}", origins=dict(origins))]
    if not places and not Path(CONFIG_FILE).exists():
        found = [hint(_NAME, "no settings file is here, and all is as by default", "`ingestor init` writes one")]
    return [*found, *_exposed(premises), *_at_odds(premises)]


def _exposed(premises: Premises) -> Iterator[Finding]:
    """Secrets in files that others may read, or that get around easily."""
    for name in secret_names():
        origin = premises.loaded.origins.get(name, "")
        is_dotenv = origin.rstrip(")").endswith(f"{DOTENV_FILE} file")
        file = Path(DOTENV_FILE) if is_dotenv else Path(origin)
        if not origin or not file.is_file():
            continue
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            sentence = f"{name} is in {file}, which others may read (mode {mode:o})"
            yield warning(_NAME, sentence, f"chmod 600 {file}, or give it as {variable(name)}", mode=f"{mode:o}")
        elif not is_dotenv:
            yield hint(
                _NAME, f"{name} is in {file}", f"give it as {variable(name)}, or as a file in the secrets folder"
            )


def _at_odds(premises: Premises) -> Iterator[Finding]:
    for chosen in dict.fromkeys(each.embedding for each in premises.sources):
        try:
            allowance_of(chosen)
        except ConfigError as error:
            yield failure(_NAME, error)
        yield from _endpoint(chosen)
    chroma = premises.settings.chroma
    place = urlsplit(chroma.url)
    if chroma.mode == "http" and chroma.token and place.scheme == "http" and not is_loopback(place.hostname or ""):
        sentence = f"the token of Chroma goes to {place.hostname} unencrypted"
        yield warning(_NAME, sentence, "set chroma.ssl, or reach the server through a tunnel")
    if chroma.mode == "memory":
        yield hint(_NAME, "Chroma is in memory: the collection ends with the process", "set chroma.mode to managed")


def _endpoint(chosen: EmbeddingSettings) -> Iterator[Finding]:
    provider = PROVIDERS[chosen.provider]
    if provider.is_in_process:
        ignored = [name for name in ("base_url", "api_key", "dimensions") if getattr(chosen, name)]
        if ignored:
            names = ", ".join(f"embedding.{name}" for name in ignored)
            yield hint(_NAME, f"{names} mean nothing for the provider {chosen.provider}", "leave them out")
        return
    place = urlsplit(chosen.endpoint_url)
    if place.scheme == "http" and chosen.api_key and not is_loopback(place.hostname or ""):
        sentence = f"key and texts go to {place.hostname} unencrypted"
        yield warning(_NAME, sentence, "set embedding.base_url to an https:// URL, or use a tunnel")
