"""Which embedding function a collection names, by the settings."""

from pathlib import Path

import pytest

from ingestor.app.embedder import function_of
from ingestor.core.asking import Function
from ingestor.core.errors import ConfigError
from ingestor.settings import load_settings

KEYS = {"OPENAI_API_KEY": "", "DASHSCOPE_API_KEY": "", "INGESTOR_EMBEDDING__API_KEY": ""}


@pytest.fixture(autouse=True)
def _nobody_else_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


def function(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], key: str = "") -> Function | None:
    if key:
        monkeypatch.setenv(key, "secret-key")
    overrides = {f"embedding.{name}": value for name, value in settings.items()}
    return function_of(load_settings(None, overrides).settings.embedding)


@pytest.mark.parametrize(
    ("key", "settings", "config"),
    [
        (
            "OPENAI_API_KEY",
            {"provider": "openai"},
            {
                "api_key_env_var": "OPENAI_API_KEY",
                "model_name": "text-embedding-3-small",
                "api_base": "https://api.openai.com/v1",
                "dimensions": 1_536,
            },
        ),
        (
            "OPENAI_API_KEY",
            {"provider": "openai", "dimensions": 256, "base_url": "http://proxy:1/v1"},
            {
                "api_key_env_var": "OPENAI_API_KEY",
                "model_name": "text-embedding-3-small",
                "api_base": "http://proxy:1/v1",
                "dimensions": 256,
            },
        ),
        (
            "DASHSCOPE_API_KEY",
            {"provider": "dashscope"},
            {
                "api_key_env_var": "DASHSCOPE_API_KEY",
                "model_name": "text-embedding-v4",
                "api_base": "https://dashscope.aliyuncs.com/compatible-mode/v1",
                "dimensions": 1_024,
            },
        ),
        (
            "INGESTOR_EMBEDDING__API_KEY",
            {"provider": "dashscope-intl"},
            {
                "api_key_env_var": "INGESTOR_EMBEDDING__API_KEY",
                "model_name": "text-embedding-v4",
                "api_base": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
                "dimensions": 1_024,
            },
        ),
        (
            "",
            {"provider": "ollama"},
            {
                "api_key_env_var": "INGESTOR_EMBEDDING__API_KEY",
                "model_name": "bge-m3",
                "api_base": "http://127.0.0.1:11434/v1",
                "dimensions": 1_024,
            },
        ),
        (
            "",
            {"provider": "openai", "base_url": "http://here:1/v1", "model": "unheard-of"},
            {"api_key_env_var": "OPENAI_API_KEY", "model_name": "unheard-of", "api_base": "http://here:1/v1"},
        ),
    ],
    ids=["openai", "openai, shorter", "dashscope", "dashscope, our variable", "no key", "unknown"],
)
def test_chroma_s_own_function_is_named_with_the_name_of_the_key_s_variable(
    monkeypatch: pytest.MonkeyPatch, key: str, settings: dict[str, object], config: dict[str, object]
) -> None:
    assert function(monkeypatch, settings, key) == Function("openai", config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "prefix", "sends_dimensions"),
    [
        ({"provider": "ollama", "model": "nomic-embed-text"}, "search_query: ", False),
        ({"provider": "vllm", "model": "BAAI/bge-large-zh-v1.5"}, "为这个句子生成表示以用于检索相关文章：", False),
        ({"provider": "openai", "base_url": "http://a/v1", "model": "unheard-of", "dimensions": 99}, "", True),
        ({"provider": "dashscope", "dimensions": 512, "api_key": "k"}, "", True),
    ],
    ids=["prefixes", "query prefix", "dimensions of an unknown model", "dimensions"],
)
def test_where_chroma_s_own_function_would_ask_otherwise_ours_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], prefix: str, *, sends_dimensions: bool
) -> None:
    """Chroma's knows no prefixes, and sends dimensions for names with `text-embedding-3` alone."""
    found = function(monkeypatch, settings)
    assert found is not None
    assert found.name == "ingestor"
    assert found.config["query_prefix"] == prefix
    assert found.config["sends_dimensions"] is sends_dimensions


def test_the_built_in_model_is_ours_and_needs_neither_url_nor_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert function(monkeypatch, {}) == Function(
        "ingestor",
        {
            "provider": "local",
            "model": "multilingual-e5-small",
            "dimensions": 384,
            "document_prefix": "passage: ",
            "query_prefix": "query: ",
        },
    )


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2@a/v1", "http://hunter2@a/v1", "http://a/v1?key=hunter2", "http://a/v1#hunter2"],
)
def test_a_url_that_may_hold_a_secret_is_named_by_no_function(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        function(monkeypatch, {"provider": "openai", "base_url": url})
    assert "hunter2" not in caught.value.sentence
    assert "embedding.base_url" in str(caught.value)
    assert caught.value.remedy


def test_without_a_key_that_the_provider_needs_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the collection, by a process that has no key, must not take back what the daemon has named."""
    assert function(monkeypatch, {"provider": "dashscope"}) is None


@pytest.mark.parametrize("provider", ["openai", "dashscope", "ollama"])
def test_no_function_ever_holds_the_key(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    assert "secret-key" not in repr(function(monkeypatch, {"provider": provider}, "INGESTOR_EMBEDDING__API_KEY"))
