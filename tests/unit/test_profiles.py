import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest

from ingestor.core.errors import ConfigError
from ingestor.core.fingerprint import recipe_fingerprint
from ingestor.core.model import Purpose, Recipe
from ingestor.core.profiles import (
    MODELS,
    MODELS_FILE,
    PROVIDERS,
    ModelProfile,
    ProviderProfile,
    checked_dimensions,
    profile_for,
    recipe_for,
    without_lone_surrogates,
)
from ingestor.settings import load_settings, setting_fields

TASK = "Given a web search query, retrieve relevant passages that answer the query"
FILE: dict[str, Any] = tomllib.loads(files("ingestor.core").joinpath(MODELS_FILE).read_text(encoding="utf-8"))
OPEN = [table for table in FILE["model"] if "provider" not in table]
SERVERS = [name for name, provider in PROVIDERS.items() if provider.is_server]
IN_PROCESS = ("local", "chroma-default")
LIMITS = ("max_batch_inputs", "max_text_tokens", "max_batch_tokens")


def limits_of(profile: ModelProfile) -> tuple[int, int, int]:
    return profile.max_batch_inputs, profile.max_text_tokens, profile.max_batch_tokens


@pytest.mark.parametrize("profile", MODELS, ids=lambda profile: f"{profile.provider}/{profile.model}")
def test_every_figure_of_the_table_is_sound(profile: ModelProfile) -> None:
    assert profile.provider in PROVIDERS
    assert profile.is_known
    assert profile.default_dimensions in profile.allowed_dimensions
    assert min(profile.allowed_dimensions) > 0
    assert len(set(profile.allowed_dimensions)) == len(profile.allowed_dimensions)
    assert profile.max_batch_inputs > 0
    assert profile.max_batch_tokens >= profile.max_text_tokens > 0
    assert not profile.sends_dimensions or len(profile.allowed_dimensions) > 1
    assert profile.price_per_million_tokens is None or profile.price_per_million_tokens >= 0
    assert (profile.currency in {"USD", "CNY"}) == bool(profile.price_per_million_tokens)
    assert profile.published_name
    assert profile.task
    assert profile.languages
    assert profile.licence


@pytest.mark.parametrize("table", FILE["model"], ids=lambda table: f"{table.get('provider', 'open')}/{table['name']}")
def test_every_model_of_the_file_is_of_one_form(table: dict[str, Any]) -> None:
    assert ("provider" in table) != ("served_as" in table), "a model is of one provider, or open"
    assert ("allowed_dimensions" in table) != ("least_dimensions" in table)
    assert 0 < table.get("least_dimensions", 1) <= table["default_dimensions"]
    if "provider" in table:
        assert table["provider"] in PROVIDERS
        assert "aliases" not in table, "a name that a provider gives is the only one"
    else:
        assert set(table["served_as"]) <= set(SERVERS)
        assert not {"price_per_million_tokens", "currency", "sends_dimensions"} & set(table)
    is_our_limit = any(source.startswith("ours:") for source in table["sources"])
    assert is_our_limit or "max_batch_tokens" not in table, "nobody but OpenAI gives tokens a call"


@pytest.mark.parametrize(
    "table",
    [*FILE["provider"], *FILE["model"], FILE["unknown"]],
    ids=lambda table: f"{table.get('provider', '')}/{table.get('name', '')}",
)
def test_every_table_says_where_its_figures_are_from(table: dict[str, Any]) -> None:
    assert table["sources"]
    for source in table["sources"]:
        page, colon, read = source.partition(": ")
        assert page
        assert colon, f"{source!r} does not say what was read there"
        assert read


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.provider)
def test_every_provider_is_sound(provider: ProviderProfile) -> None:
    assert profile_for(provider.provider).is_known
    assert (provider.provider in IN_PROCESS) == provider.is_in_process == (provider.base_url == "")
    assert provider.base_url == "" or provider.base_url.startswith(
        "http://127.0.0.1:" if provider.is_server else "https://"
    )
    assert provider.needs_key == bool(provider.key_variable) == (provider.provider not in {*SERVERS, *IN_PROCESS})
    for limit in LIMITS:
        value = getattr(provider, limit)
        assert value is None or value > 0
        assert not provider.is_server or limit == "max_text_tokens" or value is not None, (
            "a server has limits of a call"
        )


def test_no_model_is_described_twice() -> None:
    described = [(table.get("provider"), table["name"]) for table in FILE["model"]]
    assert len(set(described)) == len(described)
    assert len({table["provider"] for table in FILE["provider"]}) == len(FILE["provider"])


@pytest.mark.parametrize("table", OPEN, ids=lambda table: str(table["name"]))
@pytest.mark.parametrize("provider", [*SERVERS, "openai"])
def test_every_name_of_an_open_model_leads_to_it_everywhere(table: dict[str, Any], provider: str) -> None:
    for name in (table["name"], *table.get("aliases", ()), *table["served_as"].values()):
        for written in (name, name.upper()):
            profile = profile_for(provider, written)
            assert (profile.published_name, profile.model) == (table["name"], written)


@pytest.mark.parametrize(
    ("name", "published_name"),
    [
        ("bge-m3:latest", "BAAI/bge-m3"),
        ("bge-m3:567m-fp16", "BAAI/bge-m3"),
        ("me/bge-m3", "BAAI/bge-m3"),
        ("/models/BGE-M3", "BAAI/bge-m3"),
        ("nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("text-embedding-nomic-embed-text-v1.5@q8_0", "nomic-ai/nomic-embed-text-v1.5"),
        ("qwen3-embedding:0.6b-fp16", "Qwen/Qwen3-Embedding-0.6B"),
        ("hf.co/Qwen/Qwen3-Embedding-4B-GGUF:Q4_K_M", "Qwen/Qwen3-Embedding-4B"),
        ("qwen3-embedding", ""),
        ("qwen3-embedding:latest", ""),
        ("nomic-embed-text-v2-moe", ""),
        ("bge-m3-retromae", ""),
        ("multilingual-e5", ""),
        (":", ""),
        ("/", ""),
    ],
)
def test_a_name_as_servers_write_it_is_recognised_and_one_that_leaves_the_size_open_is_not(
    name: str, published_name: str
) -> None:
    assert profile_for("ollama", name).published_name == published_name


def test_an_open_model_is_not_looked_for_where_only_the_provider_s_own_models_are() -> None:
    assert not profile_for("dashscope", "BAAI/bge-m3").is_known
    assert not profile_for("vllm", "text-embedding-v4").is_known


def test_limits_of_server_and_model_are_intersected() -> None:
    assert [limits_of(profile_for("tei", "BAAI/bge-m3")), limits_of(profile_for("tei", "Qwen/Qwen3-Embedding-8B"))] == [
        (32, 8_192, 16_384),
        (32, 16_384, 16_384),
    ]
    assert limits_of(profile_for("ollama", "bge-m3")) == (32, 4_096, 8_192)
    assert limits_of(profile_for("ollama", "nomic-embed-text")) == (32, 2_048, 8_192)


def test_an_open_model_at_an_endpoint_that_we_do_not_know_has_its_own_figures_and_cautious_calls() -> None:
    profile = profile_for("openai", "intfloat/multilingual-e5-large")
    assert limits_of(profile) == (10, 512, 5_120)
    assert (profile.default_dimensions, profile.document_prefix, profile.query_prefix) == (
        1_024,
        "passage: ",
        "query: ",
    )
    assert profile.price_per_million_tokens is None
    assert limits_of(profile_for("openai", "BAAI/bge-m3")) == (10, 8_192, 8_192)


@pytest.mark.parametrize(
    ("name", "document", "query"),
    [
        ("bge-m3", "d", "q"),
        ("m3e-base", "d", "q"),
        ("bge-large-zh-v1.5", "d", "为这个句子生成表示以用于检索相关文章：q"),
        ("nomic-embed-text", "search_document: d", "search_query: q"),
        ("multilingual-e5-base", "passage: d", "query: q"),
        ("qwen3-embedding:8b", "d", f"Instruct: {TASK}\nQuery:q"),
        ("gte-Qwen2-7B-instruct", "d", f"Instruct: {TASK}\nQuery: q"),
        ("multilingual-e5-large-instruct", "d", f"Instruct: {TASK}\nQuery: q"),
    ],
)
def test_an_open_model_gets_its_texts_as_its_card_asks(name: str, document: str, query: str) -> None:
    recipe = recipe_for(profile_for("ollama", name))
    assert recipe.model == name
    assert recipe.text_to_send("d") == document
    assert recipe.text_to_send("q", Purpose.QUERY) == query


@pytest.mark.parametrize(
    ("provider", "model", "dimensions", "carries"),
    [
        ("openai", "", 1_536, True),
        ("openai", "text-embedding-ada-002", 1_536, False),
        ("dashscope", "", 1_024, True),
        ("vllm", "Qwen/Qwen3-Embedding-0.6B", 1_024, False),
        ("vllm", "Qwen/Qwen3-Embedding-0.6B", 512, True),
        ("ollama", "bge-m3", 1_024, False),
        ("openai", "unheard-of", 0, False),
        ("openai", "unheard-of", 512, True),
    ],
)
def test_a_request_says_its_dimensions_only_where_that_is_taken_or_needed(
    provider: str, model: str, dimensions: int, *, carries: bool
) -> None:
    assert profile_for(provider, model).carries_dimensions(dimensions) is carries


def test_a_server_that_gives_one_length_only_is_not_asked_for_another() -> None:
    assert checked_dimensions(profile_for("infinity", "Qwen/Qwen3-Embedding-4B"), 512) == 512
    with pytest.raises(ConfigError, match="512 dimensions"):
        checked_dimensions(profile_for("lmstudio", "text-embedding-qwen3-embedding-4b"), 512)


@pytest.mark.parametrize(
    ("provider", "model", "price", "currency"),
    [
        ("local", "", 0.0, ""),
        ("openai", "text-embedding-3-small", 0.02, "USD"),
        ("openai", "text-embedding-3-large", 0.13, "USD"),
        ("openai", "text-embedding-ada-002", 0.1, "USD"),
        ("openai", "unheard-of", None, ""),
        ("dashscope", "text-embedding-v4", 0.5, "CNY"),
        ("dashscope", "text-embedding-v1", 0.7, "CNY"),
        ("dashscope", "unheard-of", None, ""),
        ("dashscope-intl", "text-embedding-v3", 0.07, "USD"),
        ("ollama", "bge-m3", 0.0, ""),
        ("ollama", "unheard-of", 0.0, ""),
    ],
)
def test_prices(provider: str, model: str, price: float | None, currency: str) -> None:
    profile = profile_for(provider, model)
    assert (profile.price_per_million_tokens, profile.currency) == (price, currency)


@pytest.mark.parametrize(
    ("recipe", "fingerprint"),
    [
        (Recipe("local", "multilingual-e5-small", 384, "passage: ", "query: "), "02be52526e0b9690"),
        (Recipe("openai", "text-embedding-3-small", 1_536), "4027864e8eafb9b1"),
        (Recipe("dashscope", "text-embedding-v4", 1_024), "72f4854311b71713"),
    ],
    ids=lambda value: value.provider if isinstance(value, Recipe) else "",
)
def test_collections_of_today_keep_fitting_their_models(recipe: Recipe, fingerprint: str) -> None:
    assert recipe_for(profile_for(recipe.provider)) == recipe
    assert recipe_fingerprint(recipe) == fingerprint


def test_the_settings_name_the_providers_of_the_file() -> None:
    (declared,) = [field for name, field in setting_fields() if name == "embedding.provider"]
    assert get_args(declared.annotation) == tuple(PROVIDERS)


def test_both_regions_of_dashscope_take_the_key_of_dashscope(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("DASHSCOPE_API_KEY", "key")
    for provider in ("dashscope", "dashscope-intl"):
        key = load_settings(None, {"embedding.provider": provider}).settings.embedding.api_key
        assert key is not None
        assert key.get_secret_value() == "key"
    assert load_settings(None, {"embedding.provider": "ollama"}).settings.embedding.api_key is None


def test_users_may_raise_the_batch_of_a_server_of_theirs_and_of_no_provider_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))
    for provider, model in (("tei", "BAAI/bge-m3"), ("openai", "BAAI/bge-m3"), ("openai", "unheard-of")):
        wanted = {"embedding.provider": provider, "embedding.model": model, "embedding.max_batch_inputs": 128}
        assert load_settings(None, wanted).settings.embedding.max_batch_inputs == 128
    with pytest.raises(ConfigError, match="at most 10 texts"):
        load_settings(None, {"embedding.provider": "dashscope", "embedding.max_batch_inputs": 11})


def test_the_default_models() -> None:
    assert {name: profile_for(name).model for name in PROVIDERS} == {
        "local": "multilingual-e5-small",
        "openai": "text-embedding-3-small",
        "dashscope": "text-embedding-v4",
        "dashscope-intl": "text-embedding-v4",
        "ollama": "bge-m3",
        "vllm": "BAAI/bge-m3",
        "tei": "BAAI/bge-m3",
        "lmstudio": "text-embedding-bge-m3",
        "infinity": "BAAI/bge-m3",
        "xinference": "bge-m3",
        "chroma-default": "all-MiniLM-L6-v2",
    }


def test_default_base_urls() -> None:
    assert {name: provider.base_url for name, provider in PROVIDERS.items()} == {
        "local": "",
        "openai": "https://api.openai.com/v1",
        "dashscope": "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "dashscope-intl": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "ollama": "http://127.0.0.1:11434/v1",
        "vllm": "http://127.0.0.1:8000/v1",
        "tei": "http://127.0.0.1:8080/v1",
        "lmstudio": "http://127.0.0.1:1234/v1",
        "infinity": "http://127.0.0.1:7997",
        "xinference": "http://127.0.0.1:9997/v1",
        "chroma-default": "",
    }


@pytest.mark.parametrize(
    ("model", "dimensions", "inputs", "text_tokens", "sends"),
    [
        ("text-embedding-v4", 1_024, 10, 8_192, True),
        ("text-embedding-v3", 1_024, 10, 8_192, True),
        ("text-embedding-v2", 1_536, 25, 2_048, False),
        ("text-embedding-v1", 1_536, 25, 2_048, False),
    ],
)
def test_dashscope_limits(model: str, dimensions: int, inputs: int, text_tokens: int, *, sends: bool) -> None:
    profile = profile_for("dashscope", model)
    assert (profile.default_dimensions, profile.max_batch_inputs, profile.max_text_tokens) == (
        dimensions,
        inputs,
        text_tokens,
    )
    assert profile.sends_dimensions is sends


def test_only_ada_of_openai_s_models_has_a_fixed_length() -> None:
    sends = {profile.model: profile.sends_dimensions for profile in MODELS if profile.provider == "openai"}
    assert sends == {
        "text-embedding-3-small": True,
        "text-embedding-3-large": True,
        "text-embedding-ada-002": False,
    }


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name not in IN_PROCESS])
def test_an_unknown_remote_model_gets_the_smallest_limits_of_the_table(provider: str) -> None:
    profile = profile_for(provider, "unheard-of")
    remote = [known for known in MODELS if known.provider not in IN_PROCESS]
    assert not profile.is_known
    assert profile.model == "unheard-of"
    assert profile.max_batch_inputs == min(known.max_batch_inputs for known in remote)
    assert profile.max_text_tokens == min(known.max_text_tokens for known in remote)
    assert not profile.sends_dimensions
    assert recipe_for(profile) == Recipe(provider, "unheard-of", 0)
    assert recipe_for(profile, 1_000).dimensions == 1_000


def test_an_unknown_provider_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ConfigError, match="'cohere'") as caught:
        profile_for("cohere", "embed-v4")
    assert "local, openai, dashscope" in caught.value.remedy


def test_a_local_model_that_is_not_built_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="bge-m3") as caught:
        profile_for("local", "bge-m3")
    assert "multilingual-e5-small" in caught.value.remedy


@pytest.mark.parametrize(
    ("provider", "model", "dimensions", "named"),
    [
        ("dashscope", "text-embedding-v3", 1_536, "1024, 768, 512, 256, 128, 64"),
        ("dashscope", "text-embedding-v2", 512, "1536"),
        ("openai", "text-embedding-3-small", 1_537, "1 to 1536"),
        ("local", "", 768, "384"),
    ],
)
def test_a_dimension_that_the_model_lacks_is_refused_with_the_allowed_ones_named(
    provider: str, model: str, dimensions: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=f"{dimensions} dimensions") as caught:
        recipe_for(profile_for(provider, model), dimensions)
    assert caught.value.remedy.endswith(named)


@pytest.mark.parametrize("dimensions", [1, 256, 1_536])
def test_a_dimension_that_the_model_has_is_taken(dimensions: int) -> None:
    assert checked_dimensions(profile_for("openai"), dimensions) == dimensions


def test_no_dimension_is_the_model_s_default() -> None:
    assert checked_dimensions(profile_for("openai", "text-embedding-3-large")) == 3_072


def test_a_negative_dimension_is_refused_even_for_an_unknown_model() -> None:
    with pytest.raises(ConfigError, match="-1"):
        checked_dimensions(profile_for("openai", "unheard-of"), -1)


def test_the_local_recipe_has_the_prefixes_of_e5() -> None:
    recipe = recipe_for(profile_for("local"))
    assert recipe.text_to_send("a") == "passage: a"
    assert recipe.text_to_send("a", Purpose.QUERY) == "query: a"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain 文", "plain 文"),
        ("a\ud800b", "a\ufffdb"),
        ("a\udc80", "a\ufffd"),
        ("\ud83d\ude00 and \ude00\ud83d", "\U0001f600 and \ufffd\ufffd"),
        ("nul \0 stays", "nul \0 stays"),
    ],
)
def test_lone_surrogates_are_replaced_and_pairs_joined(text: str, clean: str) -> None:
    assert without_lone_surrogates(text) == clean
    assert clean.encode()
