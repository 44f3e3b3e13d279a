"""Whatever stands in the environment, in `.env`, in the secrets folder and in `ingestor.toml`: settings, or one line.

`pytest tests/property --hypothesis-profile thorough` makes a long run of it.
"""

import contextlib
import json
import os
import shutil
import traceback
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.core.errors import ConfigError
from ingestor.core.escaping import escaped
from ingestor.settings import Loaded, load_settings, setting_fields, setting_names, variable

SECRET = "sk-Zq7vXr4tBn"  # noqa: S105 - a made-up one
BOUNDED = settings(max_examples=2 * settings().max_examples, deadline=None, derandomize=settings().max_examples <= 100)
NUMBERS = [name for name, each in setting_fields() if each.annotation in {int, float, int | None, float | None}]
VARIABLES = [variable(name) for name in setting_names()]
GROUPS = ["INGESTOR_WATCH", "INGESTOR_CHUNK", "INGESTOR_EMBEDDING", "INGESTOR_CHROMA", "INGESTOR_CHROMA__HNSW"]
PLACES = ("environment", "dotenv", "secret", "toml")

EXTREMES = st.sampled_from(
    ["nan", "inf", "-inf", "+Infinity", "-1", "-0.0", "1e999", "-1e999", "1" + "0" * 30, "-1" + "0" * 30, "9" * 5_000]
)
ODD_VALUES = st.sampled_from(
    (
        *(
            "",
            " ",
            "0",
            "1",
            "-1",
            "0x10",
            "1_000",
            "٣",
            "nan",
            "null",
            "true",
            "{}",
            "[]",
            "[[]]",
            '["a", 1]',
            '{"a": 1}',
        ),
        *(
            "[" * 5_000,
            '{"a":' * 5_000,
            r'["\ud800"]',
            "~nobody-of-that-name/x",
            "~",
            "x" * 5_000,
            "a\nb",
            "a\tb",
            "\x1b[2J",
        ),
        *(
            "http://",
            "http://[",
            "https://:0",
            "http://a:99999",
            "http://a b",
            "http://\u202e",
            "http://é.example",
            "\ufeff",
        ),
        *("local", "openai", "dashscope", "managed", "always", "debug", "8000", "text-embedding-v4", "2.5", "${X:-y}"),
    )
)
BYTES_OF_VARIABLES = st.binary(max_size=40).filter(lambda raw: b"\0" not in raw)
VALUES = ODD_VALUES.filter(str.isascii) | EXTREMES | BYTES_OF_VARIABLES.map(os.fsdecode) | st.integers().map(str)
KEYS = (
    st.sampled_from(VARIABLES + GROUPS + ["OPENAI_API_KEY", "DASHSCOPE_API_KEY", "INGESTOR_", "INGESTOR___"])
    | st.sampled_from(VARIABLES).map(str.lower)
    | st.text("ACEHIMORT_.\n\x1b\x7f9", max_size=12).map(lambda rest: f"INGESTOR_{rest}")
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["port", "hnsw", "api_key", "model", "x", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that settings may come from."""

    environment: Mapping[str, str] = field(default_factory=dict)
    dotenv: bytes | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    toml: bytes | None = None


def put(place: str, name: str, value: str) -> Surroundings:
    """One setting at one place."""
    match place:
        case "environment":
            return Surroundings(environment={variable(name): value})
        case "dotenv":
            return Surroundings(dotenv=f"{variable(name)}={value}\n".encode())
        case "secret":
            return Surroundings(secrets={variable(name): value.encode()})
        case _:
            group, _, leaf = name.rpartition(".")
            return Surroundings(toml=(f"[{group}]\n" if group else "").encode() + f"{leaf} = {value}\n".encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def outcome(folder: Path, given_: Surroundings) -> Loaded | ConfigError:
    """Settings, or the error that ends a command with exit code 2; anything else is raised."""
    for place in folder.iterdir():
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    secrets = folder / "secrets"
    secrets.mkdir()
    for name, raw in given_.secrets.items():
        (secrets / name).write_bytes(raw)
    if given_.dotenv is not None:
        (folder / ".env").write_bytes(given_.dotenv)
    if given_.toml is not None:
        (folder / "ingestor.toml").write_bytes(given_.toml)
    environment = {"INGESTOR_SECRETS_DIR": str(secrets), "HOME": str(folder), **given_.environment}
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment, clear=True):
        try:
            return load_settings()
        except ConfigError as error:
            return error


def is_harmless(text: str) -> bool:
    """Whether no terminal does anything but show the text."""
    return not any(
        unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(each) in {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
        for each in text
    )


def assert_clear(error: ConfigError) -> None:
    """One line, with a remedy, that shows nothing but what can be shown."""
    assert error.exit_code == 2
    assert error.remedy
    told = escaped(error.sentence)
    assert is_harmless(told)
    assert len(told) < 1_000, told


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1" + "0" * 30, "-1" + "0" * 30])
def test_numbers_beyond_all_measure_are_refused_by_name(folder: Path, place: str, value: str) -> None:
    for name in NUMBERS:
        refused = outcome(folder, put(place, name, value))
        assert isinstance(refused, ConfigError), name
        assert f"setting {name} ({variable(name)}) is wrong" in str(refused)
        assert_clear(refused)


@BOUNDED
@given(name=st.sampled_from(setting_names()), place=st.sampled_from(PLACES[:3]), value=ODD_VALUES | EXTREMES)
@example(name="watch.include", place="environment", value="[" * 5_000)
@example(name="embedding.base_url", place="environment", value="http://[")
@example(name="chroma.host", place="dotenv", value="\x1b[2J")
def test_a_value_is_taken_or_refused_by_name(folder: Path, name: str, place: str, value: str) -> None:
    loaded = outcome(folder, put(place, name, value))
    if isinstance(loaded, ConfigError):
        assert_clear(loaded)
        group, _, leaf = name.rpartition(".")
        assert variable(name) in str(loaded) or f"{group}.{leaf}" in str(loaded)
        assert {"environment": "environment", "dotenv": ".env", "secret": "secret"}[place] in loaded.sentence
    else:
        assert all(is_harmless(escaped(row.value)) for row in loaded.rows())


@BOUNDED
@given(st.dictionaries(KEYS.filter(lambda key: "\0" not in key), VALUES, max_size=6))
@example({"INGESTOR_CHROMA": '{"port": ' + "1" * 5_000 + "}"})
@example({"INGESTOR_CHROMA": "[" * 5_000})
@example({"INGESTOR_SECRETS_DIR": "x" * 5_000})
@example({"INGESTOR_SECRETS_DIR": "/dev/null"})
@example({"INGESTOR_CONFIG": "x" * 5_000})
@example({"INGESTOR_CONFIG": "/dev"})
@example({"INGESTOR_EMBEDDING__API_KEY": "kéy"})
def test_any_environment_is_taken_or_refused(folder: Path, environment: dict[str, str]) -> None:
    refused = outcome(folder, Surroundings(environment=environment))
    if isinstance(refused, ConfigError):
        assert_clear(refused)


@BOUNDED
@given(st.sampled_from(GROUPS), JSON_VALUES.map(json.dumps) | st.text('{}[]":,1ea\\', max_size=30))
def test_a_group_as_json_is_taken_or_refused(folder: Path, name: str, value: str) -> None:
    refused = outcome(folder, Surroundings(environment={name: value}))
    if isinstance(refused, ConfigError):
        assert_clear(refused)


TOML_PIECES = st.sampled_from(
    (
        *(
            "[chroma]\n",
            "[[chroma]]\n",
            "[watch]\n",
            "[chroma.hnsw]\n",
            "[embedding]\n",
            "[x.y]\n",
            "chroma.port = 1\n",
        ),
        *(
            "port = 1\n",
            "port = 1979-05-27\n",
            "port = nan\n",
            "port = [1]\n",
            "port = {}\n",
            "port = '1'\n",
            "model = 7\n",
        ),
        *(
            'path = ""\n',
            "path = 5\n",
            'watch_dir = "~nobody-of-that-name/x"\n',
            'data_dir = "a\\u0000b"\n',
            "watch_dir=true\n",
        ),
        *('"" = 1\n', '"a\\nb" = 1\n', "include = [1]\n", 'include = ["*.md"]\n', 'exclude = "[["\n', 'api_key = ""\n'),
    )
)


@BOUNDED
@given(st.lists(TOML_PIECES, max_size=6).map("".join).map(str.encode) | st.binary(max_size=60))
@example(b"x = " + b"[" * 5_000 + b"]" * 5_000)
@example(b"a." * 5_000 + b"b = 1")
@example(b"[chroma]\nport = " + b"1" * 5_000)
@example(b"watch_dir = '~nobody-of-that-name/x'")
@example(b"\xff\xfe")
def test_any_settings_file_is_taken_or_refused(folder: Path, raw: bytes) -> None:
    refused = outcome(folder, Surroundings(toml=raw))
    if isinstance(refused, ConfigError):
        assert_clear(refused)
        assert "ingestor.toml" in refused.sentence or "INGESTOR_" in refused.sentence


@BOUNDED
@given(
    st.lists(
        st.builds("{}{}{}\n".format, KEYS, st.sampled_from(["=", " = ", "='", '="', ""]), ODD_VALUES), max_size=5
    ).map(lambda lines: "".join(lines).encode("utf-8", "surrogatepass"))
    | st.binary(max_size=60)
)
@example(b"INGESTOR_CHROMA__HOST=\xff")
@example(b"INGESTOR_CHROMA__HOST\n")
@pytest.mark.filterwarnings("ignore:python-dotenv")
def test_any_dotenv_file_is_taken_or_refused(folder: Path, raw: bytes) -> None:
    refused = outcome(folder, Surroundings(dotenv=raw))
    if isinstance(refused, ConfigError):
        assert_clear(refused)


@BOUNDED
@given(
    st.dictionaries(
        st.sampled_from([*VARIABLES, "OPENAI_API_KEY", "INGESTOR_CHROMA", "other", "keystore.p12"])
        | st.text("INGESTOR_abc\n\x1b", min_size=1, max_size=14),
        st.binary(max_size=30),
        max_size=4,
    )
)
@example({"keystore.p12": b"\xff\xfe\x00"})
@example({"INGESTOR_CHROMA__TOKEN": b"\xff"})
@example({"INGESTOR_CHROMA__TOKEN": b"x" * 100_000})
def test_any_secrets_folder_is_taken_or_refused(folder: Path, secrets: dict[str, bytes]) -> None:
    refused = outcome(folder, Surroundings(secrets=secrets))
    if isinstance(refused, ConfigError):
        assert_clear(refused)
        ours = [name for name in secrets if name.upper().startswith(("INGESTOR_", "OPENAI_API_KEY"))]
        assert ours, "what others keep in the same folder is none of our business"


SECRET_PLACES = st.sampled_from(
    [
        Surroundings(environment={"INGESTOR_EMBEDDING__API_KEY": SECRET}),
        Surroundings(environment={"INGESTOR_EMBEDDING__API_KEY": f"{SECRET}\n{SECRET}"}),
        Surroundings(environment={"INGESTOR_EMBEDDING": json.dumps({"api_key": SECRET, "dimensions": 3})}),
        Surroundings(environment={"INGESTOR_EMBEDDING": json.dumps({"api_key": [SECRET]})}),
        Surroundings(environment={"INGESTOR_EMBEDDING": json.dumps({"api_key": SECRET})[:-1]}),
        Surroundings(environment={"INGESTOR_CHROMA__TOKEN": f"{SECRET} é"}),
        Surroundings(environment={"OPENAI_API_KEY": SECRET, "INGESTOR_EMBEDDING__PROVIDER": "openai"}),
        Surroundings(dotenv=f"INGESTOR_CHROMA__TOKEN={SECRET}\n".encode()),
        Surroundings(dotenv=f"INGESTOR_CHROMA__TOKEN='{SECRET}\n".encode()),
        Surroundings(secrets={"INGESTOR_CHROMA__TOKEN": SECRET.encode()}),
        Surroundings(secrets={"INGESTOR_CHROMA__TOKEN": SECRET.encode() + b"\xff"}),
        Surroundings(secrets={"INGESTOR_CHROMA__TOKEN": SECRET.encode() * 10_000}),
        Surroundings(toml=f"[embedding]\napi_key = '{SECRET}'\nmodel = 7\n".encode()),
        Surroundings(toml=f"[embedding]\napi_key = '{SECRET}\n".encode()),
        Surroundings(toml=f"[embedding]\napi_key = {SECRET}\n".encode()),
    ]
)
WRONGS = st.sampled_from(
    [
        {},
        {"INGESTOR_CHROMA__PORT": "0"},
        {"INGESTOR_EMBEDDING__PROVIDER": "dashscope", "INGESTOR_EMBEDDING__DIMENSIONS": "1000"},
        {"INGESTOR_EMBEDDING__PROVIDER": "dashscope", "INGESTOR_EMBEDDING__MAX_BATCH_INPUTS": "2000"},
        {"INGESTOR_CHUNK__MAX_TOKENS": "8000"},
        {"INGESTOR_CHROMA": '{"hnsw": 1}'},
        {"INGESTOR_WACH_DIR": "x"},
    ]
)


@BOUNDED
@given(SECRET_PLACES, WRONGS)
def test_a_secret_is_in_no_message_and_no_repr(folder: Path, secret: Surroundings, wrong: dict[str, str]) -> None:
    given_ = Surroundings({**secret.environment, **wrong}, secret.dotenv, secret.secrets, secret.toml)
    loaded = outcome(folder, given_)
    told: list[object] = [loaded]
    if isinstance(loaded, ConfigError):
        assert_clear(loaded)
        told += [loaded.sentence, "".join(traceback.format_exception(loaded))]  # what `--debug` shows
    else:
        told += [loaded.rows(), loaded.settings, loaded.settings.model_dump(mode="json")]
    for each in told:
        assert SECRET not in repr(each)


def test_a_password_in_the_base_url_is_not_listed(folder: Path) -> None:
    base_url = {"INGESTOR_EMBEDDING__BASE_URL": f"https://user:{SECRET}@example.org/v1"}
    loaded = outcome(folder, Surroundings(environment=base_url))
    assert isinstance(loaded, Loaded)
    assert loaded.settings.embedding.endpoint_url == base_url["INGESTOR_EMBEDDING__BASE_URL"]
    (row,) = (row for row in loaded.rows() if row.name == "embedding.base_url")
    assert row.value == "https://********@example.org/v1"


def test_an_empty_value_of_the_file_counts_as_not_set(folder: Path) -> None:
    loaded = outcome(folder, Surroundings(toml=b'watch_dir = ""\n[chroma]\npath = ""\n'))
    assert isinstance(loaded, Loaded)
    assert loaded.settings.watch_dir == Path("watched_dir")
    assert loaded.settings.chroma_path == Path(".ingestor/chroma")


def test_blanks_around_a_key_are_no_part_of_it(folder: Path) -> None:
    loaded = outcome(folder, Surroundings(environment={"INGESTOR_EMBEDDING__API_KEY": f" {SECRET}\r\n"}))
    assert isinstance(loaded, Loaded)
    key = loaded.settings.embedding.api_key
    assert key is not None
    assert key.get_secret_value() == SECRET


@pytest.mark.parametrize("key", [f"{SECRET}\t{SECRET}", f"{SECRET}\n{SECRET}", f"{SECRET}é", f"{SECRET}\udcff", "\x7f"])
@pytest.mark.parametrize("name", ["embedding.api_key", "chroma.token"])
def test_a_key_that_no_request_can_carry_is_refused_and_not_repeated(folder: Path, name: str, key: str) -> None:
    refused = outcome(folder, put("environment", name, key))
    assert isinstance(refused, ConfigError)
    assert variable(name) in str(refused)
    assert SECRET not in refused.sentence
    assert_clear(refused)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[", "https://:443", "http://a:99999", "http://a:b", "http://a b", "http://..", "http://a\x00b"],
)
def test_a_url_without_a_host_is_refused_by_name(folder: Path, url: str) -> None:
    toml = f"[embedding]\nbase_url = {json.dumps(url)}\n".encode()
    refused = outcome(folder, Surroundings(toml=toml))
    assert isinstance(refused, ConfigError)
    assert "INGESTOR_EMBEDDING__BASE_URL" in str(refused)
    assert_clear(refused)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:11434/v1", "http://[::1]:80", "https://bücher.example/v1", "http://gpu_box"]
)
def test_a_url_of_any_host_is_taken(folder: Path, url: str) -> None:
    loaded = outcome(folder, put("environment", "embedding.base_url", url))
    assert isinstance(loaded, Loaded)
    assert loaded.settings.embedding.endpoint_url == url
