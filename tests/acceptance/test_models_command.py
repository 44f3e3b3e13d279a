"""`ingestor models`: every model that is known, how to select it, and which one is configured."""

import shlex
from pathlib import Path

import pytest

from ingestor.core.profiles import MODELS, PROVIDERS, profile_for
from tests.daemon import Finished, Site

MAX_COLUMNS = 100


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, {"INGESTOR_EMBEDDING__PROVIDER": "", "INGESTOR_EMBEDDING__MODEL": ""})


def models(site: Site, *options: str, **settings: str) -> Finished:
    done = site.command("models", *options, **settings)
    assert done.code == 0, done.err
    return done


def test_the_json_has_every_model_and_its_select_line_selects_it(site: Site) -> None:
    shown = models(site, "--json").json()
    assert [(known["provider"], known["model"]) for known in shown["models"]] == [
        (profile.provider, profile.model) for profile in MODELS
    ]
    for known in shown["models"]:
        assert known["task"]
        assert known["languages"]
        assert known["licence"]
        assert known["sources"]
        assert known["default_dimensions"] > 0
        variables = dict(part.split("=", 1) for part in shlex.split(known["select"]))
        profile = profile_for(variables["INGESTOR_EMBEDDING__PROVIDER"], variables["INGESTOR_EMBEDDING__MODEL"])
        assert (
            profile.published_name,
            profile.max_batch_inputs,
            profile.max_text_tokens,
            profile.max_batch_tokens,
        ) == (
            known["published_name"],
            known["max_batch_inputs"],
            known["max_text_tokens"],
            known["max_batch_tokens"],
        )
    assert [known["model"] for known in shown["models"] if known["is_configured"]] == ["multilingual-e5-small"]
    assert shown["configured"]["provider"] == "local"


def test_a_select_line_is_what_the_next_call_shows_as_configured(site: Site) -> None:
    (found,) = [
        known
        for known in models(site, "--json").json()["models"]
        if (known["provider"], known["published_name"]) == ("ollama", "Qwen/Qwen3-Embedding-0.6B")
    ]
    variables = dict(part.split("=", 1) for part in shlex.split(found["select"]))

    shown = models(site, "--json", **variables).json()

    assert shown["configured"]["select"] == found["select"]
    assert shown["configured"]["allowed_dimensions"] == {"from": 32, "to": 1024}
    assert [known["select"] for known in shown["models"] if known["is_configured"]] == [found["select"]]


def test_the_table_names_every_provider_and_model_marks_the_configured_one_and_fits_the_terminal(site: Site) -> None:
    told = models(site, INGESTOR_EMBEDDING__PROVIDER="dashscope", DASHSCOPE_API_KEY="k", COLUMNS="60").out
    assert all(name in told for name in PROVIDERS)
    assert all(profile.model in told and profile.licence in told for profile in MODELS)
    assert max(map(len, told.splitlines())) <= MAX_COLUMNS
    marked = [line for line in told.splitlines() if line.startswith("*")]
    assert [line.split()[1] for line in marked] == ["text-embedding-v4", "configured:"]
    assert "CNY 0.50" in marked[0]
    assert "INGESTOR_EMBEDDING__PROVIDER=dashscope INGESTOR_EMBEDDING__MODEL=text-embedding-v4" in told


def test_a_model_that_is_not_known_is_told_with_the_limits_it_gets_and_cannot_act_upon_the_terminal(site: Site) -> None:
    chosen = {
        "INGESTOR_EMBEDDING__PROVIDER": "openai",
        "INGESTOR_EMBEDDING__BASE_URL": "http://localhost:1",
        "INGESTOR_EMBEDDING__MODEL": "[red]new 'one'",
    }
    told = models(site, **chosen).out
    assert "configured, but not in this list: openai [red]new 'one'" in told
    assert "512 tokens/text, 10 texts/call, 5,120 tokens/call, price: not known" in told

    shown = models(site, "--json", **chosen).json()

    assert shown["configured"]["default_dimensions"] is None
    assert shown["configured"]["price_per_million_tokens"] is None
    assert shlex.split(shown["configured"]["select"])[1] == "INGESTOR_EMBEDDING__MODEL=[red]new 'one'"
    assert not any(known["is_configured"] for known in shown["models"])


def test_an_open_model_at_another_endpoint_is_marked_once(site: Site) -> None:
    told = models(site, INGESTOR_EMBEDDING__PROVIDER="openai", INGESTOR_EMBEDDING__MODEL="bge-m3").out
    assert [line.split()[1:] for line in told.splitlines() if line.startswith("*")] == [
        ["BAAI/bge-m3", "1024", "dimensions,", "8,192", "tokens/text"],
        ["configured:", "openai", "bge-m3"],
    ]


def test_wrong_settings_are_an_error_that_names_them(site: Site) -> None:
    done = site.command("models", INGESTOR_EMBEDDING__PROVIDER="cohere")
    assert done.code == 2
    assert "INGESTOR_EMBEDDING__PROVIDER" in done.err
    assert "xinference" in done.err
