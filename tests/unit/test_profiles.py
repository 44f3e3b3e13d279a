import pytest

from ingestor.core.errors import ConfigError
from ingestor.core.model import Purpose, Recipe
from ingestor.core.profiles import (
    MODELS,
    PROVIDERS,
    ModelProfile,
    checked_dimensions,
    profile_for,
    recipe_for,
    without_lone_surrogates,
)


@pytest.mark.parametrize("profile", MODELS, ids=lambda profile: f"{profile.provider}/{profile.model}")
def test_every_figure_of_the_table_is_sound(profile: ModelProfile) -> None:
    assert profile.provider in PROVIDERS
    assert profile.is_known
    assert profile.default_dimensions in profile.allowed_dimensions
    assert profile.max_batch_inputs > 0
    assert profile.max_batch_tokens >= profile.max_text_tokens > 0
    assert profile.sends_dimensions == (len(profile.allowed_dimensions) > 1)
    assert profile.source


def test_no_model_is_described_twice() -> None:
    assert len({(profile.provider, profile.model) for profile in MODELS}) == len(MODELS)


def test_a_provider_s_default_model_is_in_the_table() -> None:
    assert {name: profile_for(name).model for name in PROVIDERS} == {
        "local": "multilingual-e5-small",
        "openai": "text-embedding-3-small",
        "dashscope": "text-embedding-v4",
    }
    assert all(profile_for(name).is_known for name in PROVIDERS)


def test_default_base_urls() -> None:
    assert PROVIDERS["openai"].base_url == "https://api.openai.com/v1"
    assert PROVIDERS["dashscope"].base_url == "https://dashscope.aliyuncs.com/compatible-mode/v1"
    assert PROVIDERS["local"].base_url == ""
    assert not PROVIDERS["local"].needs_key


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


def test_an_unknown_remote_model_gets_the_smallest_limits_of_the_table() -> None:
    profile = profile_for("openai", "bge-m3")
    assert not profile.is_known
    assert profile.model == "bge-m3"
    assert profile.max_batch_inputs == min(known.max_batch_inputs for known in MODELS if known.provider != "local")
    assert profile.max_text_tokens == min(known.max_text_tokens for known in MODELS)
    assert not profile.sends_dimensions
    assert recipe_for(profile) == Recipe("openai", "bge-m3", 0)
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
        checked_dimensions(profile_for("openai", "bge-m3"), -1)


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
