"""`ingestor config`: what is in force, where it came from, and no secret."""

from pathlib import Path

import pytest

from tests.daemon import Finished, Site

SECRETS = ("key-from-environment", "key-from-secrets", "key-from-dotenv", "key-of-provider", "token-in-toml")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, {})


def write_sources(site: Site) -> dict[str, str]:
    """Every setting is set in every place of lower rank as well, to another value."""
    (site.root / "ingestor.toml").write_text(
        """
        watch_dir = "from-toml"
        [log]
        level = "error"
        [chunk]
        max_tokens = 101
        [embedding]
        provider = "openai"
        dimensions = 11
        [chroma]
        collection = "from-toml"
        token = "token-in-toml"
        """,
        encoding="utf-8",
    )
    secrets = site.root / "secrets"
    secrets.mkdir()
    for name, value in {
        "INGESTOR_CHUNK__MAX_TOKENS": "102",
        "INGESTOR_EMBEDDING__DIMENSIONS": "12",
        "INGESTOR_CHROMA__COLLECTION": "from-secrets",
        "INGESTOR_EMBEDDING__API_KEY": "key-from-secrets",
    }.items():
        (secrets / name).write_text(value, encoding="utf-8")
    (site.root / ".env").write_text(
        "INGESTOR_EMBEDDING__DIMENSIONS=13\nINGESTOR_CHROMA__COLLECTION=from-dotenv\n", encoding="utf-8"
    )
    return {"INGESTOR_SECRETS_DIR": str(secrets), "INGESTOR_CHROMA__COLLECTION": "from-environment"}


def config(site: Site, **settings: str) -> Finished:
    done = site.command("config", "--json", **settings)
    assert done.code == 0, done.err
    return done


def test_every_place_wins_over_those_below_it_and_is_named(site: Site) -> None:
    shown = config(site, **write_sources(site)).json()

    assert shown["chroma.collection"] == {"value": "from-environment", "origin": "environment"}
    assert shown["embedding.dimensions"] == {"value": "13", "origin": ".env file"}
    assert shown["chunk.max_tokens"] == {"value": "102", "origin": "secrets folder"}
    assert shown["log.level"] == {"value": "error", "origin": "ingestor.toml"}
    assert shown["watch_dir"] == {"value": str(site.root / "from-toml"), "origin": "ingestor.toml"}
    assert shown["watch.quiet_seconds"] == {"value": "1.0", "origin": "default"}


def test_no_secret_is_ever_printed(site: Site) -> None:
    sources = write_sources(site)
    shown = config(site, **sources)
    assert shown.json()["embedding.api_key"] == {"value": "********", "origin": "secrets folder"}
    assert shown.json()["chroma.token"]["value"] == "********"
    from_environment = config(site, **sources, INGESTOR_EMBEDDING__API_KEY="key-from-environment")
    assert from_environment.json()["embedding.api_key"] == {"value": "********", "origin": "environment"}

    for done in (shown, from_environment, site.command("config", **sources), site.command("config", "--debug")):
        for secret in SECRETS:
            assert secret not in done.out + done.err


def test_the_provider_s_own_variable_is_the_last_resort_for_the_key(site: Site) -> None:
    provider = {"INGESTOR_EMBEDDING__PROVIDER": "dashscope", "DASHSCOPE_API_KEY": "key-of-provider"}

    done = config(site, **provider)

    assert done.json()["embedding.api_key"]["value"] == "********"
    assert "DASHSCOPE_API_KEY" in done.json()["embedding.api_key"]["origin"]
    assert "key-of-provider" not in done.out + done.err


def test_a_wrong_value_in_any_place_names_the_place_and_keeps_the_secret(site: Site) -> None:
    (site.root / ".env").write_text(
        "INGESTOR_EMBEDDING__API_KEY=key-from-dotenv\nINGESTOR_CHROMA__PROT=1\n", encoding="utf-8"
    )

    done = site.command("config", "--json")

    assert done.code == 2
    assert ".env file" in done.err
    assert "INGESTOR_CHROMA__PROT" in done.err
    assert "key-from-dotenv" not in done.out + done.err
