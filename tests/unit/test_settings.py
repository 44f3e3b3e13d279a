"""Settings: where they come from, what wins, and what is refused."""

import ast
import inspect
import re
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from ingestor.core.errors import ConfigError
from ingestor.language import translated
from ingestor.settings import Settings, SourceSettings, load_settings, setting_fields, setting_names, variable

SECRET = "sk-very-secret-key"  # noqa: S105 - a made-up one


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, an environment without settings, and a secrets folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "CREDENTIALS_DIRECTORY", "INGESTOR_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(secrets))
    return tmp_path


def refused(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, overrides)
    return caught.value.sentence


def descriptions(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """What stands below every setting in the source. A process does without: to read its own source takes time."""
    (declared,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(declared, ast.ClassDef)
    for field, below in pairwise(declared.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield prefix + name, text
    for name, each in model.model_fields.items():
        if isinstance(each.annotation, type) and issubclass(each.annotation, BaseModel):
            yield from descriptions(each.annotation, f"{prefix}{name}.")


def test_defaults_need_nothing() -> None:
    settings = load_settings().settings
    assert settings.watch_dir == Path("watched_dir")
    assert settings.chroma_path == Path(".ingestor/chroma")
    assert settings.embedding.provider == "local"
    assert settings.chroma.mode == "managed"


def test_every_setting_has_a_description_and_says_its_unit() -> None:
    units = (
        "_seconds",
        "_bytes",
        "_tokens",
        "_inputs",
        "_threads",
        "_documents",
        "_ratio",
        "_per_minute",
        "_per_day",
        "_cost",
    )
    without_unit = {"chroma.port", "http.port", "embedding.dimensions", "embedding.max_concurrency"}
    without_unit |= {f"chroma.hnsw.{name}" for name in ("ef_search", "ef_construction", "max_neighbors")}
    described = dict(descriptions())
    for name, field in setting_fields():
        assert described[name], name
        if field.annotation in {int, float, int | None, float | None} and name not in without_unit:
            assert name.endswith(units), f"{name} does not say its unit"


def test_the_first_place_wins_and_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "ingestor.toml").write_text("[chroma]\nport = 1\ncollection = 'toml'\nhost = 'toml'\ntenant = 'toml'\n")
    (place / "secrets" / "INGESTOR_CHROMA__PORT").write_text("2")
    (place / "secrets" / "INGESTOR_CHROMA__COLLECTION").write_text("secrets")
    (place / "secrets" / "INGESTOR_CHROMA__HOST").write_text("secrets")
    (place / ".env").write_text("INGESTOR_CHROMA__PORT=3\nINGESTOR_CHROMA__COLLECTION=dotenv\nUNRELATED=1\n")
    monkeypatch.setenv("INGESTOR_CHROMA__PORT", "4")
    loaded = load_settings(None, {"data_dir": "here"})
    chroma = loaded.settings.chroma
    assert (chroma.port, chroma.collection, chroma.host, chroma.tenant) == (4, "dotenv", "secrets", "toml")
    origins = {row.name: row.origin for row in loaded.rows()}
    assert origins["data_dir"] == "command line"
    assert origins["chroma.port"] == "environment"
    assert origins["chroma.collection"] == ".env file"
    assert origins["chroma.host"] == "secrets folder"
    assert origins["chroma.tenant"] == "ingestor.toml"
    assert origins["chroma.database"] == "default"


def test_systemd_credentials_are_secrets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = place / "credentials"
    credentials.mkdir()
    (credentials / "INGESTOR_EMBEDDING__API_KEY").write_text(SECRET + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    key = load_settings().settings.embedding.api_key
    assert key is not None
    assert key.get_secret_value() == SECRET


@pytest.mark.parametrize("origin", ["toml", "environment", "group", "secret"])
def test_metadata_of_ones_own_is_a_table_or_a_json_object(
    place: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    match origin:
        case "toml":
            (place / "ingestor.toml").write_text('[watch.metadata]\nteam = "x"\ntags = ["a"]\nauthor.name = ""\n')
        case "environment":
            monkeypatch.setenv("INGESTOR_WATCH__METADATA", '{"team": "x", "tags": ["a"], "author": {"name": ""}}')
        case "group":
            monkeypatch.setenv("INGESTOR_WATCH", '{"metadata": {"team": "x", "tags": ["a"], "author": {"name": ""}}}')
        case _:
            file = place / "secrets" / "INGESTOR_WATCH__METADATA"
            file.write_text('{"team": "x", "tags": ["a"], "author": {"name": ""}}')
    loaded = load_settings()
    assert loaded.settings.watch.metadata == {"team": "x", "tags": ("a",), "author.name": ""}
    (row,) = (row for row in loaded.rows() if row.name == "watch.metadata")
    assert row.value == '{"team": "x", "tags": ["a"], "author.name": ""}'
    assert row.origin != "default"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"source": "x"}', "the key source"),
        ('{"a": NaN}', "the key a"),
        ("[1]", "JSON object"),
        ("team=x", "JSON object"),
        ('{"a":' * 5_000, "JSON object"),
    ],
)
def test_metadata_that_cannot_be_taken_is_an_error_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, written: str, said: str
) -> None:
    monkeypatch.setenv("INGESTOR_WATCH__METADATA", written)
    sentence = refused()
    assert "setting watch.metadata (INGESTOR_WATCH__METADATA) is wrong" in sentence
    assert said in sentence


def test_a_key_of_metadata_is_no_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_WATCH__METADATA__TEAM", "x")
    assert "unknown setting INGESTOR_WATCH__METADATA__TEAM" in refused()


def test_paths_of_a_file_are_taken_from_its_folder(place: Path) -> None:
    other = place / "other"
    other.mkdir()
    (other / "my.toml").write_text("watch_dir = 'notes'\ndata_dir = '/var/lib/x'\n[chroma]\npath = 'db'\n")
    settings = load_settings(other / "my.toml").settings
    assert settings.watch_dir == other / "notes"
    assert settings.data_dir == Path("/var/lib/x")
    assert settings.chroma_path == other / "db"


def test_what_a_file_elsewhere_does_not_name_lies_beside_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = place / "other"
    other.mkdir()
    (other / "my.toml").write_text("[chroma]\nport = 8001\n")
    loaded = load_settings(other / "my.toml")
    assert (loaded.settings.watch_dir, loaded.settings.data_dir) == (other / "watched_dir", other / ".ingestor")
    assert {row.origin for row in loaded.rows() if row.name in {"watch_dir", "data_dir"}} == {"default"}

    (other / "my.toml").write_text("[[sources]]\nfolder = 'notes'\n")
    monkeypatch.setenv("INGESTOR_CONFIG", str(other / "my.toml"))
    (source,) = load_settings().settings.each()
    assert (source.watch_dir, source.data_dir) == (other / "notes", other / ".ingestor")

    monkeypatch.setenv("INGESTOR_DATA_DIR", "here")
    assert load_settings().settings.data_dir == Path("here")


def test_the_default_folders_of_a_file_that_lies_here_are_told_in_short(place: Path) -> None:
    (place / "my.toml").write_text("[chroma]\nport = 8001\n")
    settings = load_settings(place / "my.toml").settings
    assert (settings.watch_dir, settings.data_dir) == (Path("watched_dir"), Path(".ingestor"))


@pytest.mark.parametrize(
    ("variable_name", "said"),
    [
        ("INGESTOR_WACH_DIR", "INGESTOR_WATCH_DIR"),
        ("INGESTOR_CHROMA__PROT", "chroma.port"),
        ("INGESTOR_WATCH_DIR__X", "unknown setting INGESTOR_WATCH_DIR__X"),
    ],
)
def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable_name: str, said: str) -> None:
    monkeypatch.setenv(variable_name, "1")
    sentence = refused()
    assert variable_name in sentence
    assert said in sentence


def test_an_unknown_key_of_the_file_is_named(place: Path) -> None:
    (place / "ingestor.toml").write_text("[embedding]\nmodle = 'x'\n")
    assert "embedding.modle (ingestor.toml)" in refused()
    (place / "ingestor.toml").write_text("colection = 'x'\n")
    assert "colection" in refused()


def test_an_unknown_key_of_dotenv_is_named(place: Path) -> None:
    (place / ".env").write_text("INGESTOR_CHROMA__PROT=1\n")
    assert "INGESTOR_CHROMA__PROT (.env file)" in refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chroma.port", "70000"),
        ("chroma.hnsw.ef_search", "0"),
        ("chroma.hnsw.space", "euclid"),
        ("chroma.collection", "no spaces"),
        ("watch.max_file_bytes", "-1"),
        ("watch.quiet_seconds", "soon"),
        ("embedding.provider", "acme"),
        ("log.level", "loud"),
    ],
)
def test_a_bad_value_is_named_with_its_origin(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(variable(name), value)
    sentence = refused()
    assert variable(name) in sentence
    assert "environment" in sentence


@pytest.mark.parametrize(
    "wrong", ["*", "*.docs.example", "http://docs.example", "docs.example:80", "docs.example/x", "例"]
)
def test_a_host_that_no_request_can_name_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    name = variable("http.allowed_hosts")
    monkeypatch.setenv(name, "docs.example, 192.0.2.1, ::1, [fe80::1], my_host.")
    assert len(load_settings().settings.http.allowed_hosts) == 5
    monkeypatch.setenv(name, f"docs.example,{wrong}")
    with pytest.raises(ConfigError, match="each is a name alone"):
        load_settings()


def test_a_name_from_a_file_or_a_variable_loses_the_line_break_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_EMBEDDING__BASE_URL", "https://api.example/v1\n")
    monkeypatch.setenv("INGESTOR_CHROMA__HOST", " ::1\r\n")
    settings = load_settings().settings
    assert settings.embedding.endpoint_url == "https://api.example/v1"
    assert settings.chroma.url == "http://[::1]:8000"


def test_a_base_url_of_azure_s_deployments_is_refused_with_the_form_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "INGESTOR_EMBEDDING__BASE_URL", "https://r.openai.azure.com/openai/deployments/d?api-version=2024-02-01"
    )
    with pytest.raises(ConfigError, match=r"embedding\.base_url .*/openai/v1/"):
        load_settings()


def test_what_does_not_fit_together_is_refused() -> None:
    assert "overlap_tokens" in refused(**{"chunk.max_tokens": 100, "chunk.overlap_tokens": 60})
    assert "at most 512 tokens" in refused(**{"chunk.max_tokens": 600})
    assert "dimensions" in refused(**{"embedding.provider": "dashscope", "embedding.dimensions": 1000})
    assert "at most 10 texts" in refused(**{"embedding.provider": "dashscope", "embedding.max_batch_inputs": 25})
    assert "base_url" in refused(**{"embedding.provider": "openai", "embedding.base_url": "ftp://x"})


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_EMBEDDING__API_KEY", SECRET)
    monkeypatch.setenv("INGESTOR_CHROMA__TOKEN", SECRET)
    loaded = load_settings()
    assert SECRET not in repr(loaded)
    assert SECRET not in repr(loaded.rows())
    assert {row.value for row in loaded.rows() if row.name in {"embedding.api_key", "chroma.token"}} == {"********"}
    monkeypatch.setenv("INGESTOR_EMBEDDING__DIMENSIONS", SECRET)
    assert SECRET not in refused()


def test_a_secret_of_a_url_is_used_and_never_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, proxy = f"https://me:{SECRET}@api.example/v1?key={SECRET}", f"http://me:{SECRET}@proxy.example:3128"
    monkeypatch.setenv("INGESTOR_EMBEDDING__PROVIDER", "openai")
    monkeypatch.setenv("INGESTOR_EMBEDDING__BASE_URL", url)
    monkeypatch.setenv("INGESTOR_EMBEDDING__PROXY", proxy)
    monkeypatch.setenv("INGESTOR_CHROMA__PROXY", proxy)
    (place / "ca.pem").touch()
    (place / "ingestor.toml").write_text(
        f"[[sources]]\nfolder = 'a'\nembedding = {{ base_url = '{url}', proxy = '{proxy}', ca_file = 'ca.pem' }}\n"
    )
    loaded = load_settings()
    (source,) = loaded.settings.each()
    assert loaded.settings.embedding.endpoint_url == source.embedding.endpoint_url == url
    shown = {row.name: row.value for row in loaded.rows()}
    assert shown["embedding.base_url"] == "https://********@api.example/v1?********"
    assert shown["chroma.proxy"] == "http://proxy.example:3128"
    for told in (loaded, loaded.settings, source, source.embedding, shown, loaded.settings.model_dump()):
        assert SECRET not in f"{told!r} {told!s}"


@pytest.mark.parametrize("name", ["embedding.base_url", "embedding.proxy", "chroma.host", "chroma.proxy", "sources"])
@pytest.mark.parametrize("written", ["ftp://me:{}@x", "me:{}@x:y", "http://me:{}?@x/#", "https://me:{}@x:99999"])
def test_a_secret_of_a_url_that_is_wrong_is_in_no_error(name: str, written: str) -> None:
    text = written.format(SECRET)
    value = [{"folder": "a", "embedding": {"base_url": text, "proxy": text}}] if name == "sources" else text
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"embedding.provider": "openai", "chroma.mode": "http", name: value})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("provider", "name"), [("openai", "OPENAI_API_KEY"), ("dashscope", "DASHSCOPE_API_KEY")])
def test_the_providers_own_key_is_a_fallback(monkeypatch: pytest.MonkeyPatch, provider: str, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("INGESTOR_EMBEDDING__PROVIDER", provider)
    loaded = load_settings()
    key = loaded.settings.embedding.api_key
    assert key is not None
    assert key.get_secret_value() == SECRET
    assert loaded.origins["embedding.api_key"] == f"{name} (environment)"
    monkeypatch.setenv("INGESTOR_EMBEDDING__API_KEY", "own")
    key = load_settings().settings.embedding.api_key
    assert key is not None
    assert key.get_secret_value() == "own"


def test_the_providers_key_may_stand_in_dotenv(place: Path) -> None:
    (place / ".env").write_text(f"OPENAI_API_KEY={SECRET}\nINGESTOR_EMBEDDING__PROVIDER=openai\n")
    assert load_settings().origins["embedding.api_key"] == "OPENAI_API_KEY (.env file)"


@pytest.mark.parametrize("text", ["*.md, *.txt", "*.md\n*.txt", '["*.md", "*.txt"]'])
def test_patterns_come_as_lines_commas_or_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("INGESTOR_WATCH__INCLUDE", text)
    assert load_settings().settings.watch.include == ("*.md", "*.txt")


def test_an_empty_secret_counts_as_not_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "secrets" / "INGESTOR_EMBEDDING__API_KEY").write_text("\n")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("INGESTOR_EMBEDDING__PROVIDER", "openai")
    assert load_settings().origins["embedding.api_key"] == "OPENAI_API_KEY (environment)"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR_CHROMA__PORT", "")
    assert load_settings().settings.chroma.port == 8000


def test_a_named_file_that_is_missing_or_broken_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(place / "missing.toml")
    (place / "broken.toml").write_text("not toml at all")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_settings(place / "broken.toml")


def test_the_readme_lists_every_setting_as_it_is() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if re.match(r"\| `[^|]*\| `INGESTOR_", line)]
    fields, described = dict(setting_fields()), dict(descriptions())
    assert [row.split("`")[1] for row in rows] == setting_names()
    for row in rows:
        name, shown_variable, default, meaning = (cell.strip() for cell in row.strip("|").split(" | "))
        field = fields[name.strip("`")]
        assert shown_variable == f"`{variable(name.strip('` '))}`"
        in_force = field.get_default(call_default_factory=True)
        assert default.strip("`") == ("" if in_force in (None, "", (), {}) else str(in_force))
        assert meaning == described[name.strip("`")]


def test_the_readme_lists_every_key_of_a_source_as_it_is() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Several folders")[1].split("\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    described = dict(descriptions(SourceSettings))
    assert [(key.strip("`"), meaning.strip()) for key, meaning in rows] == list(described.items())


def test_a_source_in_a_file_is_read_from_there_and_in_a_variable_from_here(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "etc").mkdir()
    (place / "etc" / "own.toml").write_text("[[sources]]\nfolder = 'My Notes'\ncollection = 'notes'\n")
    (source,) = load_settings(place / "etc" / "own.toml").settings.each()
    assert (source.watch_dir, source.source_name) == (place / "etc" / "My Notes", "My_Notes")
    assert (source.ledger_file, source.chroma.collection) == ("ledger-My_Notes.sqlite3", "notes")
    monkeypatch.setenv("INGESTOR_SOURCES", '[{"folder": "a"}, {"folder": "b", "name": "other"}]')
    first, second = load_settings().settings.each()
    assert (first.watch_dir, first.source_name) == (Path("a"), "a")
    assert (second.source_name, second.each()) == ("other", (second,))


def test_another_provider_of_a_source_gets_neither_key_nor_url_of_the_general_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-dashscope")
    general = {"provider": "openai", "api_key": SECRET, "base_url": "http://here/v1", "max_concurrency": 3}
    source = {"folder": "a", "embedding": {"provider": "dashscope"}}
    settings = load_settings(None, {f"embedding.{k}": v for k, v in general.items()} | {"sources": [source]}).settings
    (derived,) = settings.each()
    assert derived.embedding.api_key is not None
    assert derived.embedding.api_key.get_secret_value() == "sk-dashscope"
    assert (derived.embedding.base_url.get_secret_value(), derived.embedding.max_concurrency) == ("", 3)


def test_chunks_follow_a_model_that_takes_less_unless_they_are_set() -> None:
    assert load_settings(None, {"embedding.provider": "chroma-default"}).settings.chunk.max_tokens == 204
    assert load_settings(None, {"embedding.provider": "local"}).settings.chunk.max_tokens == 440
    assert "at most 256 tokens" in refused(**{"embedding.provider": "chroma-default", "chunk.max_tokens": 300})
    source = {"folder": "a", "embedding": {"provider": "chroma-default"}, "chunk": {"overlap_tokens": 20}}
    (derived,) = load_settings(None, {"sources": [source]}).settings.each()
    assert (derived.chunk.max_tokens, derived.chunk.overlap_tokens) == (204, 20)


@pytest.mark.parametrize(
    ("name", "value", "english", "chinese"),
    [
        (
            "chroma.mode",
            "x",
            "it must be one of managed, http, persistent, memory, cloud",
            "必须是以下之一：managed, http",
        ),
        ("watch_dir", 5, "it must be a path", "必须是路径"),
        ("log.level", "loud", "it must be one of debug, info, warning, error", "必须是以下之一：debug, info"),
    ],
)
def test_what_may_be_chosen_is_told_in_words_of_the_reader(
    name: str, value: object, english: str, chinese: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        load_settings(Path("/dev/null"), {name: value})
    assert f"is wrong: {english}" in wrong.value.sentence
    assert chinese in translated(wrong.value.sentence, "zh")
