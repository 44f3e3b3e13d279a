"""Models by name, and the settings that a named model gets."""

from pathlib import Path

import pytest

from ingestor.app.choice import embedding_for
from ingestor.core.choosing import Choice, choice_of
from ingestor.core.errors import ConfigError
from ingestor.settings import load_settings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/text-embedding-3-large", Choice("openai", "text-embedding-3-large")),
        ("openai/text-embedding-3-large@256", Choice("openai", "text-embedding-3-large", 256)),
        ("dashscope", Choice("dashscope", "text-embedding-v4")),
        ("dashscope@512", Choice("dashscope", "text-embedding-v4", 512)),
        ("ollama/BAAI/bge-m3:latest", Choice("ollama", "BAAI/bge-m3:latest")),
        ("BAAI/bge-m3", Choice("openai", "BAAI/bge-m3")),
        ("bge-m3@64", Choice("openai", "bge-m3", 64)),
        ("@cf/baai/bge-m3", Choice("openai", "@cf/baai/bge-m3")),
        (" openai/a ", Choice("openai", "a")),
    ],
)
def test_names(name: str, expected: Choice) -> None:
    assert choice_of(name, "openai") == expected
    assert choice_of(expected.name, "openai") == expected


@pytest.mark.parametrize(
    "name", ["", " ", "openai/", "openai/@5", "a@", "a@0", "a@-1", "a@x", "a@1.5", "a@\uff19", "a@1e9"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"names no model|no number of dimensions") as caught:
        choice_of(name, "openai")
    assert "PROVIDER/MODEL[@DIMENSIONS]" in caught.value.remedy


def test_a_bare_name_needs_a_provider_that_is_known() -> None:
    with pytest.raises(ConfigError, match="names no provider"):
        choice_of("nobody/model")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path / "secrets"))
    for name in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ingestor.toml").write_text(
        """
        [embedding]
        provider = "openai"
        model = "text-embedding-3-small"
        base_url = "http://127.0.0.1:9/v1"
        api_key = "configured-key"
        dimensions = 256
        max_batch_inputs = 100
        max_cost_per_day = 2.0
        requests_per_minute = 30
        timeout_seconds = 5.0
        """,
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.usefixtures("place")
def test_without_a_name_it_is_the_configured_model() -> None:
    settings = load_settings().settings

    assert embedding_for(settings) == settings.embedding
    assert embedding_for(settings, dimensions=128) == settings.embedding.model_copy(update={"dimensions": 128})


@pytest.mark.usefixtures("place")
def test_the_configured_model_by_its_name_keeps_its_settings() -> None:
    settings = load_settings().settings

    assert embedding_for(settings, "text-embedding-3-small") == settings.embedding
    assert embedding_for(settings, "openai/text-embedding-3-small@64").dimensions == 64


@pytest.mark.usefixtures("place")
def test_another_model_of_the_provider_keeps_what_is_the_provider_s() -> None:
    chosen = embedding_for(load_settings().settings, "unheard-of")

    assert (chosen.provider, chosen.model, chosen.endpoint_url) == ("openai", "unheard-of", "http://127.0.0.1:9/v1")
    assert chosen.api_key is not None
    assert chosen.api_key.get_secret_value() == "configured-key"
    assert (chosen.requests_per_minute, chosen.timeout_seconds, chosen.max_batch_inputs) == (30, 5.0, 100)
    assert (chosen.dimensions, chosen.max_cost_per_day) == (None, None)


def test_another_provider_gets_its_own_key_and_nothing_of_the_configured_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-somebody-else")
    assert embedding_for(load_settings().settings, "dashscope").api_key is None

    (place / ".env").write_text("DASHSCOPE_API_KEY=key-of-provider\n", encoding="utf-8")
    chosen = embedding_for(load_settings().settings, "dashscope/text-embedding-v3@512")

    assert chosen.api_key is not None
    assert chosen.api_key.get_secret_value() == "key-of-provider"
    assert (chosen.provider, chosen.model, chosen.dimensions, str(chosen.base_url)) == (
        "dashscope",
        "text-embedding-v3",
        512,
        "",
    )
    assert (chosen.max_batch_inputs, chosen.requests_per_minute, chosen.timeout_seconds) == (None, None, 5.0)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("name", "dimensions", "words"),
    [
        ("local/nothing", None, "no built-in embedding model"),
        ("dashscope/text-embedding-v4@7", None, "no vectors of 7 dimensions"),
        ("text-embedding-3-small@9999", None, "no vectors of 9999 dimensions"),
        ("a@8", 9, "leave one of them out"),
    ],
)
def test_models_and_dimensions_that_there_are_not(name: str, dimensions: int | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        embedding_for(load_settings().settings, name, dimensions)

    assert words in caught.value.sentence
    assert "configured-key" not in caught.value.sentence


@pytest.mark.usefixtures("place")
def test_the_models_of_the_settings_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_EVALUATION__MODELS", "openai/a@8, dashscope/text-embedding-v4")
    assert load_settings().settings.evaluation.models == ("openai/a@8", "dashscope/text-embedding-v4")

    for wrong in ("bare-name", "openai/a@x", "local/nothing", "dashscope/text-embedding-v4@7"):
        monkeypatch.setenv("INGESTOR_EVALUATION__MODELS", f"openai/a,{wrong}")
        with pytest.raises(ConfigError, match=r"evaluation\.models"):
            load_settings()
