"""What can be held about deployment where neither a container engine nor a booted systemd runs.

The unit's filters are loaded into real processes, the health checks are asked about real daemons and servers, and the
wheel is built from what the image's builder gets.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pathspec import PathSpec

from ingestor.adapters import conversion_child
from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.core.errors import AlreadyRunning, AuthenticationFailed, ConfigError, LedgerCorrupt, RecipeMismatch
from ingestor.settings import load_settings, setting_names, variable
from tests import confined, documents
from tests.daemon import COMMAND, Daemon, Site, eventually, free_port

PROJECT = Path(__file__).parents[2]
SYSTEMD = PROJECT / "deploy/systemd"
UNIT = SYSTEMD / "ingestor.service"
SETTINGS_FILE = SYSTEMD / "ingestor.toml"
HOME_FOLDER = SYSTEMD / "ingestor.service.d/home-folder.conf.example"
CONTAINER = PROJECT / "deploy/container"
COMPOSE = CONTAINER / "compose.yaml"
DOCKERFILE = CONTAINER / "Dockerfile"
HEALTHCHECK = CONTAINER / "healthcheck.py"
API_KEY = "INGESTOR_EMBEDDING__API_KEY"
DOCKERS_OPTIONS = "noexec,nosuid,nodev"
"""What Docker mounts a tmpfs with before it looks at what was asked for; the last word counts."""
MAX_EXPOSURE = 15
"""In tenths, as `systemd-analyze security --threshold` wants it."""


def installed(command: str, package: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not installed (Debian package {package})")
    return found


def in_unit(name: str) -> list[str]:
    return confined.values(UNIT.read_text(encoding="utf-8"), name)


# systemd


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it is, but for a command and a user that exist on this machine."""
    text = UNIT.read_text(encoding="utf-8")
    for ours, theirs in {
        "/opt/ingestor/bin/ingestor": "/bin/true",
        "User=ingestor": "User=daemon",
        "Group=ingestor": "Group=daemon",
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    copy = tmp_path / "ingestor.service"
    copy.write_text(text, encoding="utf-8")
    return copy


def faults(unit: Path) -> str:
    """What `systemd-analyze verify` has to say of a unit and its drop-ins, and not of the machine's other units."""
    done = subprocess.run(
        [installed("systemd-analyze", "systemd"), "verify", "--recursive-errors=no", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    return "\n".join(told) if told or done.returncode == 0 else done.stderr


def test_the_unit_is_clean(unit: Path) -> None:
    assert not faults(unit)


def test_the_unit_for_a_folder_in_a_home_is_clean(unit: Path) -> None:
    drop_in = unit.parent / "ingestor.service.d/home-folder.conf"
    drop_in.parent.mkdir()
    shutil.copy(HOME_FOLDER, drop_in)
    assert not faults(unit)


def test_a_fault_in_a_unit_is_seen(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8") + "\n[Service]\nProtectSytem=strict\n", encoding="utf-8")
    assert "ProtectSytem" in faults(unit)


def test_the_unit_is_sandboxed(unit: Path) -> None:
    security = [installed("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager"]
    done = subprocess.run([*security, f"--threshold={MAX_EXPOSURE}", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_stays_down_when_only_people_can_help() -> None:
    (codes,) = in_unit("RestartPreventExitStatus")
    of_people = {
        error.exit_code for error in (ConfigError, AuthenticationFailed, RecipeMismatch, AlreadyRunning, LedgerCorrupt)
    }
    assert {int(code) for code in codes.split()} == of_people
    assert in_unit("Restart") == ["on-failure"]


def test_the_unit_starts_without_a_key() -> None:
    # With a path, systemd refuses to start the unit when the file is not there.
    credentials = in_unit("LoadCredential")
    assert API_KEY in credentials
    assert not [credential for credential in credentials if ":" in credential]


def test_a_credential_of_the_unit_is_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(API_KEY, raising=False)
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert load_settings().settings.embedding.api_key is None
    for credential in in_unit("LoadCredential"):
        file = tmp_path / "credentials" / credential
        file.parent.mkdir(exist_ok=True)
        file.write_text("a key\n", encoding="utf-8")
    key = load_settings().settings.embedding.api_key
    assert key is not None
    assert key.get_secret_value() == "a key"


def test_the_unit_names_settings_that_exist() -> None:
    named = {each.partition("=")[0] for each in in_unit("Environment") if each.startswith("INGESTOR_")}
    known = {variable(name) for name in setting_names()}
    assert named
    assert named | set(in_unit("LoadCredential")) <= known


def test_unit_and_settings_file_name_the_same_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("INGESTOR_WATCH_DIR", "INGESTOR_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    settings = load_settings(SETTINGS_FILE).settings
    assert in_unit("RequiresMountsFor") == [str(settings.watch_dir)]
    assert in_unit("ReadOnlyPaths") == [f"-{settings.watch_dir}"]
    assert [f"/var/lib/{name}" for name in in_unit("StateDirectory")] == [str(settings.data_dir)]
    assert "INGESTOR_DATA_DIR=%S/ingestor" in in_unit("Environment")


def test_the_units_user_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = installed("systemd-sysusers", "systemd")
    subprocess.run([command, f"--root={tmp_path}", SYSTEMD / "sysusers.d/ingestor.conf"], check=True)
    users = (tmp_path / "etc/passwd").read_text(encoding="utf-8").splitlines()
    (user,) = [line.split(":") for line in users if line.startswith("ingestor:")]
    assert in_unit("User") == in_unit("Group") == ["ingestor"]
    assert user[5] == "/var/lib/ingestor"
    assert user[6].endswith("nologin")


def test_the_kernel_has_the_limits_that_are_raised() -> None:
    lines = (SYSTEMD / "sysctl.d/60-ingestor.conf").read_text(encoding="utf-8").splitlines()
    limits = dict(re.split(r"\s*=\s*", line) for line in lines if not line.startswith("#"))
    assert "fs.inotify.max_user_watches" in limits
    for name, value in limits.items():
        assert Path("/proc/sys", *name.split(".")).is_file(), name
        assert int(value) > 0


# Daemons


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, {}) as site:
        (site.folder / "note.md").write_text("# Comet\n\nA comet was seen over the harbour.\n", encoding="utf-8")
        yield site


@pytest.fixture
def confinement() -> list[str | Path]:
    """The words that, put before a command, leave it no more than the unit leaves it."""
    installed("systemd-analyze", "systemd")
    if not confined.is_available():
        pytest.skip(f"{confined.LIBRARY} is not installed (Debian package libseccomp2)")
    words: list[str | Path] = [sys.executable, Path(confined.__file__), UNIT]
    if os.geteuid() == 0:
        without_capabilities = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        words = [installed("setpriv", "util-linux"), *without_capabilities, *words]
    return words


@pytest.mark.parametrize(
    "forbidden",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=7)",
        "import os; os.sched_setaffinity(0, [0])",
        "import os; os.chown('.', 1, 1)",
        "import socket; socket.socket(socket.AF_NETLINK)",
    ],
)
def test_the_confinement_of_these_tests_confines(confinement: list[str | Path], forbidden: str) -> None:
    without = subprocess.run([*confinement, sys.executable, "-c", "pass"], capture_output=True, text=True, check=False)
    assert without.returncode == 0, without.stderr
    done = subprocess.run([*confinement, sys.executable, "-c", forbidden], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not permitted" in done.stderr or "not supported" in done.stderr


def test_the_daemon_needs_no_more_than_the_unit_allows(site: Site, confinement: list[str | Path]) -> None:
    # The embedded model, a converter, and a Chroma server of its own: all of the native code that there is.
    (site.folder / "lamp.pdf").write_bytes(documents.pdf([["A lamp was lit on the pier."]]))
    log = site.root / "confined.log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            [*confinement, COMMAND, "run"],
            cwd=site.root,
            env=site.environment(),
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
    daemon = Daemon(process, log)
    try:
        daemon.wait_ready()
        eventually(lambda: len(daemon.events("document.synced")) == 2, daemon.log)
        (site.folder / "later.md").write_text("# Harvest\n\nThe harvest was late.\n", encoding="utf-8")
        eventually(lambda: len(daemon.events("document.synced")) == 3, daemon.log)
        assert site.command("problems", "--json").json() == []
        assert daemon.terminate() == 0
    finally:
        if process.poll() is None:
            daemon.kill()
    alarming = [line for line in daemon.log().splitlines() if json.loads(line)["level"] != "info"]
    assert not alarming


def converter_code(options: str, folder: Path) -> int:
    """The exit code of what converts when its folder for temporary files is a file system with these options."""
    child = [sys.executable, "-IB", conversion_child.__file__, str(1 << 30), "1000", "60", "60"]
    script = 'mount -t tmpfs -o "$1" none "$TMPDIR"; shift; exec "$@"'
    alone = [installed("unshare", "util-linux"), "--user", "--map-root-user", "--mount"]
    if (told := subprocess.run([*alone, "true"], capture_output=True, check=False)).returncode != 0:
        pytest.skip(f"no namespaces can be had here: {told.stderr.decode()}")
    done = subprocess.run(
        [*alone, "sh", "-ec", script, "sh", options, *child],
        input=b"html 6\n<p>lit",
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder)},
        capture_output=True,
        check=False,
    )
    assert (b'"size"' in done.stdout) == (done.returncode == 0), done.stderr
    return done.returncode


def test_a_folder_for_temporary_files_where_nothing_may_be_run_lets_no_converter_start(tmp_path: Path) -> None:
    assert converter_code(DOCKERS_OPTIONS, tmp_path) == conversion_child.CANNOT_START
    assert converter_code("nosuid,nodev", tmp_path) == 0


def test_the_converter_starts_with_what_the_compose_file_mounts(tmp_path: Path) -> None:
    (mounted,) = services()["ingestor"]["tmpfs"]
    place, _, options = mounted.partition(":")
    assert place == "/tmp"  # noqa: S108 - where a program looks that is told of no other
    assert converter_code(f"{DOCKERS_OPTIONS},{options}", tmp_path) == 0


def test_the_units_temporary_files_lie_where_programs_may_run() -> None:
    # Not in /tmp, and not in a RuntimeDirectory: Debian mounts /run so that nothing there may be run.
    assert "TMPDIR=%C/ingestor" in in_unit("Environment")
    assert in_unit("CacheDirectory") == ["ingestor"]
    assert "NoExecPaths" not in UNIT.read_text(encoding="utf-8")


def health(site: Site) -> tuple[int, str]:
    """Ask the image's health check, with the interpreter beside which the `ingestor` command lies, as in the image."""
    done = subprocess.run(
        [sys.executable, HEALTHCHECK],
        cwd=site.root,
        env=site.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.strip()


def is_chroma_healthy(port: int) -> bool:
    """Ask the compose file's check of the Chroma server, of a server on another port."""
    words = [word.replace("$$", "$").replace("8000", str(port)) for word in services()["chroma"]["healthcheck"]["test"]]
    assert words[0] == "CMD"
    return subprocess.run(words[1:], capture_output=True, check=False).returncode == 0


def test_health_is_a_daemon_that_lives(site: Site) -> None:
    assert health(site) == (1, "no daemon is running")
    daemon = site.start("run").wait_ready()
    assert health(site) == (0, "")
    assert is_chroma_healthy(site.port)
    # What a killed daemon leaves behind says that it runs; its server still answers.
    daemon.kill()
    assert health(site) == (1, "no daemon is running")


def test_health_is_no_command_that_runs_once(site: Site) -> None:
    instance = Instance(site.data_dir)
    instance.acquire()
    instance.announce(InstanceRecord(os.getpid(), "sync", str(site.folder), started_seconds=0.0))
    code, reason = health(site)
    instance.release()
    assert code == 1
    assert "sync" in reason


def test_wrong_settings_are_no_health_and_have_a_reason(site: Site) -> None:
    site.settings["INGESTOR_CHROMA__MODE"] = "nonsense"
    code, reason = health(site)
    assert code == 1
    assert "chroma.mode" in reason


def test_a_chroma_server_that_is_not_there_is_not_healthy() -> None:
    assert not is_chroma_healthy(free_port())


# The image


def copied() -> list[str]:
    """What the Dockerfile copies from the project."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    return [
        source for line in lines if line.startswith("COPY ") and "--from=" not in line for source in line.split()[1:-1]
    ]


def test_the_builder_gets_what_the_image_copies_and_nothing_else() -> None:
    # As Docker reads it: the last pattern that fits decides.
    ignored = PathSpec.from_lines("gitignore", (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines())
    for source in copied():
        assert (PROJECT / source).exists(), source
        # A folder is let in by the pattern, and known by its files.
        assert not ignored.match_file(source + "cli/main.py" if source == "ingestor/" else source), source
    for private in (
        ".env",
        "ingestor.toml",
        "dashscope.key",
        ".git/config",
        ".ingestor/ledger.sqlite3",
        "watched_dir/note.md",
        "deploy/container/.env",
        "ingestor/__pycache__/app.cpython-311.pyc",
    ):
        assert ignored.match_file(private), private


def test_what_the_image_copies_makes_a_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (the build backend)")
    for source in copied():
        if (PROJECT / source).is_dir():
            shutil.copytree(PROJECT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, tmp_path / source)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "ingestor/cli/main.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ingestor"}


def test_the_dependencies_of_the_image_are_the_projects() -> None:
    found = re.search(r'RUN python -c "([^"]+)"', DOCKERFILE.read_text(encoding="utf-8"))
    assert found
    # Docker joins lines that end with a backslash, and leaves others to the shell, and the shell to Python.
    listed = subprocess.run(
        [sys.executable, "-c", found.group(1).replace("\\\n", "")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    extra = project()["optional-dependencies"]["documents"]
    assert listed.stdout.splitlines() == project()["dependencies"] + extra


def test_the_image_runs_the_daemon_as_a_fixed_user_and_says_how_it_is() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    runtime = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    said = {line.split()[0]: " ".join(line.split()[1:]) for line in runtime if line and line[0] not in " #"}
    assert said["USER"] == "10001:10001"
    assert json.loads(said["VOLUME"]) == ["/data", "/watch"]
    assert json.loads(said["ENTRYPOINT"]) == ["/opt/ingestor/bin/ingestor"]
    assert json.loads(said["CMD"]) == ["run"]
    check = services()["ingestor"]["healthcheck"]
    assert said["HEALTHCHECK"].endswith("CMD " + json.dumps(check["test"][1:]))
    for option in ("interval", "timeout", "start_period", "retries"):
        assert f"--{option.replace('_', '-')}={check[option]} " in said["HEALTHCHECK"]
    variables = dict(each.split("=", 1) for each in said["ENV"].split())
    assert variables["INGESTOR_LOG__FORMAT"] == "json"
    known = {variable(name) for name in setting_names()}
    assert {name for name in variables if name.startswith("INGESTOR_")} <= known


def test_no_secret_is_in_the_image() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert not re.search(r"(API_KEY|TOKEN|PASSWORD)\s*=", text)
    assert not re.search(r"^ARG .*(KEY|TOKEN|PASSWORD|SECRET)", text, re.MULTILINE)


# Compose


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def test_the_compose_file_names_settings_that_exist() -> None:
    ingestor = services()["ingestor"]
    known = {variable(name) for name in setting_names()}
    assert set(ingestor["environment"]) | set(ingestor["secrets"]) <= known
    assert ingestor["environment"]["INGESTOR_CHROMA__HOST"] in services()


def test_the_key_comes_as_a_file_and_only_where_there_is_one() -> None:
    secrets = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["secrets"]
    assert services()["ingestor"]["secrets"] == [API_KEY] == list(secrets)
    assert secrets[API_KEY]["file"] == "${EMBEDDING_API_KEY_FILE:-/dev/null}"


def test_the_watched_folder_of_the_compose_file_is_read_only_and_not_made_up() -> None:
    volumes = {volume["target"]: volume for volume in services()["ingestor"]["volumes"]}
    assert volumes["/watch"]["read_only"] is True
    assert volumes["/watch"]["bind"] == {"create_host_path": False}
    assert volumes["/data"]["type"] == "volume"


def test_the_compose_file_publishes_nothing_beyond_this_machine() -> None:
    for name, service in services().items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_the_chroma_server_is_of_the_clients_release() -> None:
    (wanted,) = [each for each in project()["dependencies"] if each.startswith("chromadb")]
    assert services()["chroma"]["image"] == f"chromadb/chroma:{wanted.partition('>=')[2]}"


def test_docker_itself_reads_the_compose_file() -> None:
    docker = installed("docker", "docker-cli")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the docker client has no compose plug-in (Debian package docker-compose)")
    done = subprocess.run([docker, "compose", "--file", COMPOSE, "config", "--quiet"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
