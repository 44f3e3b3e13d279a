"""The first settings file: accepted for every provider, explained, without a key, never written over unasked."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from ingestor.app.init import Answers, init
from ingestor.core.errors import ConfigError
from ingestor.core.profiles import PROVIDERS
from ingestor.settings import load_settings, setting_names

KEY = "sk-very-secret-key"
COMMENTED_OUT = re.compile(r"^# (\w+ = .*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "CREDENTIALS_DIRECTORY", "INGESTOR_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path / "secrets"))
    return tmp_path


def written(file: Path, **answers: object) -> str:
    init(file, Answers(**answers), is_forced=False, makes_folder=False)  # type: ignore[arg-type]
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_file_is_accepted_for_every_provider_as_it_is_and_with_every_line_taken_in(
    place: Path, provider: str
) -> None:
    file = place / "ingestor.toml"
    text = written(file, provider=provider, watch_dir="my notes")
    settings = load_settings(file).settings
    assert settings.embedding.provider == provider
    assert settings.embedding.model == PROVIDERS[provider].default_model
    assert settings.watch_dir == place / "my notes"

    whole, count = COMMENTED_OUT.subn(r"\1", text)
    assert count > 8
    file.write_text(whole, encoding="utf-8")
    taken = load_settings(file)
    assert taken.settings.chroma.collection == "documents"
    assert len([origin for origin in taken.origins.values() if origin == str(file)]) > count


@pytest.mark.parametrize("mode", ["managed", "http", "persistent", "memory", "cloud"])
def test_the_file_is_accepted_for_every_way_to_chroma(place: Path, mode: str) -> None:
    server = {"port": 8123, "host": "db.example.org"} if mode == "http" else {}
    text = written(place / "ingestor.toml", mode=mode, **server)
    (place / "ingestor.toml").write_text(COMMENTED_OUT.sub(r"\1", text), encoding="utf-8")
    chroma = load_settings().settings.chroma
    assert chroma.mode == mode
    if mode == "http":
        assert (chroma.host, chroma.port) == ("db.example.org", 8123)


def test_every_line_has_its_explanation_and_none_is_wider_than_a_terminal(place: Path) -> None:
    lines = written(place / "ingestor.toml", provider="openai", mode="http").splitlines()
    for above, line in pairwise(lines):
        assert len(line) <= 120
        if re.match(r"(# )?\w+ = ", line):
            assert re.match(r"# \S", above), line
    names = {name.rpartition(".")[2] for name in setting_names()}
    assert set(re.findall(r"^(?:# )?(\w+) = ", "\n".join(lines), re.MULTILINE)) <= names


def test_odd_names_come_out_as_they_went_in(place: Path) -> None:
    folder = 'a "quoted" \\ folder\twith 新闻 and \x7f'
    written(place / "ingestor.toml", watch_dir=folder)
    assert tomllib.loads((place / "ingestor.toml").read_text("utf-8"))["watch_dir"] == folder


def test_a_key_is_never_written_and_its_variable_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = init(place / "one.toml", Answers(provider="dashscope"), is_forced=False, makes_folder=False)
    assert (begun.key_variable, begun.has_key) == ("DASHSCOPE_API_KEY", False)
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    monkeypatch.setenv("INGESTOR_CHROMA__TOKEN", KEY)
    begun = init(place / "two.toml", Answers(provider="dashscope", mode="http"), is_forced=False, makes_folder=False)
    assert (begun.key_variable, begun.has_key) == ("DASHSCOPE_API_KEY", True)
    text = (place / "two.toml").read_text("utf-8")
    assert KEY not in text
    assert "read from DASHSCOPE_API_KEY" in text
    begun = init(
        place / "three.toml",
        Answers(provider="openai", key_variable="INGESTOR_EMBEDDING__API_KEY"),
        is_forced=False,
        makes_folder=False,
    )
    assert (begun.key_variable, begun.has_key) == ("INGESTOR_EMBEDDING__API_KEY", False)
    with pytest.raises(ConfigError, match="does not read a key from MY_KEY") as caught:
        written(place / "four.toml", provider="openai", key_variable="MY_KEY")
    assert "OPENAI_API_KEY or INGESTOR_EMBEDDING__API_KEY" in caught.value.sentence
    assert not (place / "four.toml").exists()


def test_a_file_that_is_there_is_replaced_by_leave_alone(place: Path) -> None:
    file = place / "ingestor.toml"
    file.write_text("# mine, and no [ toml\n")
    with pytest.raises(ConfigError, match="exists"):
        written(file)
    assert file.read_text() == "# mine, and no [ toml\n"
    init(file, Answers(collection="other"), is_forced=True, makes_folder=True)
    assert load_settings(file).settings.chroma.collection == "other"
    assert (place / "watched_dir").is_dir()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"provider": "nobody"}, "embedding.provider"),
        ({"provider": "openai", "base_url": "ftp://x"}, "embedding.base_url"),
        ({"collection": "!"}, "chroma.collection"),
        ({"provider": "local", "model": "bge"}, "no built-in embedding model"),
    ],
    ids=["provider", "url", "collection", "model"],
)
def test_what_no_command_would_accept_is_not_written(place: Path, answers: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(place / "ingestor.toml", **answers)
    assert said in caught.value.sentence
    assert list(place.iterdir()) == []


def test_what_goes_before_the_file_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_CHROMA__COLLECTION", "other")
    begun = init(place / "ingestor.toml", Answers(), is_forced=False, makes_folder=False)
    assert begun.outranked == {"chroma.collection": "INGESTOR_CHROMA__COLLECTION (environment)"}


def test_a_file_elsewhere_names_the_folder_that_was_meant(place: Path) -> None:
    (place / "etc").mkdir()
    written(place / "etc" / "own.toml", watch_dir="notes")
    assert load_settings(place / "etc" / "own.toml").settings.watch_dir == place / "notes"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"host": "db.example.org"}, "chroma.host means nothing where chroma.mode is managed"),
        ({"mode": "persistent", "port": 8123}, "chroma.port means nothing where chroma.mode is persistent"),
        ({"base_url": "http://localhost:1/v1"}, "embedding.base_url means nothing for the provider local"),
        ({"watch_dir": "file.txt"}, "file.txt is no folder"),
        ({"watch_dir": "file.txt/below"}, "the folder file.txt/below cannot be made: Not a directory"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_the_file_could_not_say_is_refused_with_its_cause(
    place: Path, answers: dict[str, object], said: str
) -> None:
    (place / "file.txt").touch()
    with pytest.raises(ConfigError, match=said) as error:
        init(place / "ingestor.toml", Answers(**answers), is_forced=False, makes_folder=True)  # type: ignore[arg-type]
    assert error.value.remedy
    assert not (place / "ingestor.toml").exists()


def test_a_file_that_cannot_be_written_is_told(place: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        written(place / "gone" / "ingestor.toml")
