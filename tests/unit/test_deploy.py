"""What can be held about deployment where neither a container engine nor a booted systemd runs.

The unit's filters are loaded into real processes, the health checks are asked about real daemons and servers, and the
wheel is built from what the image's builder gets.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version
from pathspec import PathSpec

from ingestor.adapters import conversion_child
from ingestor.cli.output import EXIT_PROBLEMS
from ingestor.core.errors import AlreadyRunning, AuthenticationFailed, ConfigError, LedgerCorrupt, RecipeMismatch
from ingestor.settings import load_settings, setting_names, variable
from tests import confined, documents
from tests.daemon import COMMAND, HTTP, Daemon, Site, eventually, free_port
from tests.image import instructions
from tests.tools import tool

PROJECT = Path(__file__).parents[2]
SYSTEMD = PROJECT / "deploy/systemd"
UNIT = SYSTEMD / "ingestor.service"
SANDBOX = SYSTEMD / "ingestor.service.d/10-sandbox.conf"
"""What all services have in common."""
SERVICES = ["ingestor.service", "ingestor-sync.service"]
SETTINGS_FILE = SYSTEMD / "ingestor.toml"
EXAMPLES = sorted(SYSTEMD.rglob("*.example"))
CONTAINER = PROJECT / "deploy/container"
COMPOSE = CONTAINER / "compose.yaml"
DOCKERFILE = CONTAINER / "Dockerfile"
HEALTHCHECK = CONTAINER / "healthcheck.py"
SCRAPE = PROJECT / "deploy/monitoring/prometheus.yml"
API_KEY = "INGESTOR_EMBEDDING__API_KEY"
HTTP_TOKEN = "INGESTOR_HTTP__TOKEN"  # noqa: S105 - a name
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONAL = PYPROJECT["project"]["optional-dependencies"]
DOCKERS_OPTIONS = "noexec,nosuid,nodev"
"""What Docker mounts a tmpfs with before it looks at what was asked for; the last word counts."""
MAX_EXPOSURE = 15
"""In tenths, as `systemd-analyze security --threshold` wants it."""
GUIDE = PROJECT / "deploy/README.md"
PLACED = {
    "etc/sysusers.d/ingestor.conf": SYSTEMD / "sysusers.d/ingestor.conf",
    "etc/sysctl.d/60-ingestor.conf": SYSTEMD / "sysctl.d/60-ingestor.conf",
    "etc/ingestor/ingestor.toml": SETTINGS_FILE,
    "etc/systemd/system/ingestor-sync.timer": SYSTEMD / "ingestor-sync.timer",
    **{f"etc/systemd/system/{name}": SYSTEMD / name for name in SERVICES},
    **{f"etc/systemd/system/{name}.d/{SANDBOX.name}": SANDBOX for name in SERVICES},
}
"""Where the guide puts what systemd reads."""


def installed(command: str, package: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not installed (Debian package {package})")
    return found


def in_unit(name: str) -> list[str]:
    return confined.values("".join(file.read_text(encoding="utf-8") for file in (UNIT, SANDBOX)), name)


# systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of units as it is, but for a command and a user that exist on this machine."""
    folder = tmp_path / "units"
    shutil.copytree(SYSTEMD, folder, symlinks=True)
    stand_ins = {
        SANDBOX: {"User=ingestor": "User=daemon", "Group=ingestor": "Group=daemon"},
        **{SYSTEMD / name: {"/opt/ingestor/bin/ingestor": "/bin/true"} for name in SERVICES},
    }
    for file, words in stand_ins.items():
        text = file.read_text(encoding="utf-8")
        for ours, theirs in words.items():
            assert ours in text
            text = text.replace(ours, theirs)
        (folder / file.relative_to(SYSTEMD)).write_text(text, encoding="utf-8")
    return folder


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


@pytest.mark.parametrize("name", [*SERVICES, "ingestor-sync.timer"])
def test_the_units_are_clean(units: Path, name: str) -> None:
    assert not faults(units / name)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_unit_is_clean_with_each_example(units: Path, example: Path) -> None:
    shutil.copy(example, (units / example.relative_to(SYSTEMD)).with_suffix(""))
    assert not faults(units / UNIT.name)


def test_a_fault_in_a_unit_is_seen(units: Path) -> None:
    with (units / SANDBOX.relative_to(SYSTEMD)).open("a", encoding="utf-8") as drop_in:
        drop_in.write("ProtectSytem=strict\n")
    for name in SERVICES:
        assert "ProtectSytem" in faults(units / name) or "10-sandbox" in faults(units / name)


@pytest.mark.parametrize("name", SERVICES)
def test_the_units_are_sandboxed(units: Path, name: str) -> None:
    security = [installed("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager"]
    threshold = f"--threshold={MAX_EXPOSURE}"
    done = subprocess.run([*security, threshold, units / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (units / f"{name}.d/10-sandbox.conf").unlink()
    without = subprocess.run([*security, threshold, units / name], capture_output=True, text=True, check=False)
    assert without.returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_does_not_start_without_its_sandbox(name: str) -> None:
    # One of these paths has to be there, and it is where the drop-in lies that all services share.
    asserted = confined.values((SYSTEMD / name).read_text(encoding="utf-8"), "AssertPathExists")
    folders = ["/etc/systemd/system", "/usr/lib/systemd/system"]
    assert asserted == [f"|{folder}/%n.d/{SANDBOX.name}" for folder in folders]
    assert (SYSTEMD / f"{name}.d" / SANDBOX.name).resolve() == SANDBOX
    command = [installed("systemd-analyze", "systemd"), "condition"]
    lines = [f"AssertPathExists={path.replace('%n', name)}" for path in asserted]
    here = any(Path(line.partition("|")[2]).exists() for line in lines)
    assert (subprocess.run([*command, *lines], capture_output=True, check=False).returncode == 0) == here


def test_a_sync_by_the_timer_does_not_fail_for_files_that_cannot_be_indexed() -> None:
    unit = (SYSTEMD / "ingestor-sync.service").read_text(encoding="utf-8")
    assert confined.values(unit, "SuccessExitStatus") == [str(EXIT_PROBLEMS)]
    assert confined.values(unit, "Type") == ["oneshot"]


def test_the_unit_stays_down_when_only_people_can_help() -> None:
    (codes,) = in_unit("RestartPreventExitStatus")
    of_people = {
        error.exit_code for error in (ConfigError, AuthenticationFailed, RecipeMismatch, AlreadyRunning, LedgerCorrupt)
    }
    assert {int(code) for code in codes.split()} == of_people
    assert in_unit("Restart") == ["on-failure"]


def test_a_child_that_the_kernel_ends_for_want_of_memory_is_the_daemon_s_affair() -> None:
    # systemd's own way would end the daemon as well, whose next start gives the same file to the next converter.
    assert in_unit("OOMPolicy") == ["continue"]


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


def told(section: str) -> list[str]:
    """The commands of a section of the guide, one a line."""
    text = GUIDE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return "".join(blocks).replace("\\\n", "").splitlines()


def test_the_guide_s_commands_put_every_file_in_its_place_on_a_machine_that_is_new(tmp_path: Path) -> None:
    # Of the folders below /etc systemd itself brings this one; /etc/sysusers.d is missing on Debian 12.
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    placing = [line.partition("&&")[0] for line in told("systemd") if re.match(r"sudo (cp|install) ", line)]
    for line in placing:
        command = re.sub(r" /(?=etc/|srv/)", f" {tmp_path}/", line.removeprefix("sudo "))
        shell = ["sh", "-ec", command]
        done = subprocess.run(shell, cwd=PROJECT, capture_output=True, text=True, check=False, input="")
        assert done.returncode == 0, f"{line}: {done.stderr}"
    for place, file in PLACED.items():
        assert (tmp_path / place).read_bytes() == file.read_bytes(), place
    assert (tmp_path / "srv/ingestor").is_dir()


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
    words: list[str | Path] = [sys.executable, Path(confined.__file__), SANDBOX]
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


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the socket that the unit's daemon tells how it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def heard(manager: socket.socket, state: str) -> list[str]:
    """All that a service manager hears until some state, which comes last."""
    found: list[str] = []
    while not found or not found[-1].startswith(state):
        found += manager.recv(4096).decode().splitlines()
    return found


def test_systemd_hears_how_the_daemon_is_from_its_start_to_its_end(site: Site, manager: socket.socket) -> None:
    (seconds,) = in_unit("WatchdogSec")
    site.settings["NOTIFY_SOCKET"] = str(manager.getsockname())
    site.settings["WATCHDOG_USEC"] = str(int(seconds.removesuffix("s")) * 1_000_000)
    daemon = site.start("run")
    starting = heard(manager, "READY=1")
    assert "STATUS=the collection equals the folder" not in starting
    heard(manager, "STATUS=the collection equals the folder")
    heard(manager, "WATCHDOG=1")
    assert daemon.terminate() == 0
    assert heard(manager, "STOPPING=1")


def test_systemd_hears_why_a_start_takes_so_long(site: Site, manager: socket.socket) -> None:
    site.settings |= {"NOTIFY_SOCKET": str(manager.getsockname()), "INGESTOR_CHROMA__MODE": "http"}
    daemon = site.start("run")
    assert str(site.port) in heard(manager, "STATUS=")[-1]
    assert daemon.terminate() == 0


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
    assert "NoExecPaths" not in SANDBOX.read_text(encoding="utf-8")


def health(port: int | str) -> tuple[int, str]:
    """Ask the image's health check."""
    done = subprocess.run(
        [sys.executable, HEALTHCHECK],
        env={"INGESTOR_HTTP__PORT": str(port)},
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
    site.settings.update(HTTP)
    daemon = site.start("run").wait_ready()
    port = daemon.http_url().rpartition(":")[2]
    assert health(port) == (0, "")
    assert is_chroma_healthy(site.port)
    assert health(site.port) == (1, f"http://127.0.0.1:{site.port}/healthz answers with status 404")
    os.kill(daemon.process.pid, signal.SIGSTOP)
    assert health(port) == (1, f"no daemon answers at http://127.0.0.1:{port}/healthz: timed out")
    # What a killed daemon leaves behind says that it runs; its server still answers.
    daemon.kill()
    code, reason = health(port)
    assert code == 1
    assert "refused" in reason


def test_probes_and_prometheus_get_through_by_whatever_name_they_call_the_daemon(site: Site) -> None:
    # With the environment of the compose file, which is what the ConfigMap for Kubernetes says, too.
    site.settings.update(HTTP | {HTTP_TOKEN: "word"})
    site.settings["INGESTOR_HTTP__HOST"] = services()["ingestor"]["environment"]["INGESTOR_HTTP__HOST"]
    port = site.start("run").wait_ready().http_url().rstrip("/").rpartition(":")[2]

    def status(path: str, **headers: str) -> int:
        return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers).status_code

    assert status("/healthz", Host=f"10.1.2.3:{port}") == 200
    assert status("/readyz", Host=f"10.1.2.3:{port}") == 200
    assert status("/metrics", Host="ingestor:8765") == 401
    assert status("/metrics", Host="ingestor:8765", Authorization="Bearer word") == 200


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
        "deploy/container/http.token",
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


def pins(name: str) -> dict[NormalizedName, Version]:
    """The packages that a file pins for the version of Python of the image on Linux; each has a hash."""
    found: dict[NormalizedName, Version] = {}
    for block in re.split(r"\n(?=\S)", (CONTAINER / name).read_text(encoding="utf-8")):
        if block.startswith("#"):
            continue
        line, *hashes = block.replace("\\\n", "").split(" --hash=sha256:")
        requirement = Requirement(line)
        assert hashes
        if requirement.marker is None or requirement.marker.evaluate(
            {"python_version": "3.11", "sys_platform": "linux"}
        ):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.txt", [*PYPROJECT["project"]["dependencies"], *OPTIONAL["documents"]]),
        ("backend.txt", PYPROJECT["build-system"]["requires"]),
    ],
    ids=["dependencies", "backend"],
)
def test_what_the_image_installs_is_what_the_project_asks_for(name: str, wanted: list[str]) -> None:
    pinned = pins(name)
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version in requirement.specifier if version else False, f"{requirement}: run `poe requirements`"
    assert "://" not in (CONTAINER / name).read_text(encoding="utf-8")


def test_the_build_backend_that_is_pinned_is_the_projects() -> None:
    assert PYPROJECT["dependency-groups"]["backend"] == PYPROJECT["build-system"]["requires"]


def test_the_image_installs_nothing_without_a_hash() -> None:
    for name, line in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        for command in re.split(r"&&|;", line) if name == "RUN" else ():
            if re.search(r"-m pip\b|\b(apt|apt-get|curl|wget)\b", command):
                assert "--require-hashes" in command or "--no-deps" in command, command


def test_the_linter_has_nothing_to_say_of_the_dockerfile() -> None:
    done = subprocess.run([tool("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


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


def test_the_compose_file_names_settings_that_exist() -> None:
    ingestor = services()["ingestor"]
    known = {variable(name) for name in setting_names()}
    assert set(ingestor["environment"]) | set(ingestor["secrets"]) <= known
    assert ingestor["environment"]["INGESTOR_CHROMA__HOST"] in services()


def test_keys_come_as_files() -> None:
    secrets = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["secrets"]
    assert set(services()["ingestor"]["secrets"]) == {API_KEY, HTTP_TOKEN} == set(secrets)
    assert secrets[API_KEY]["file"] == "${EMBEDDING_API_KEY_FILE:-/dev/null}"
    assert secrets[HTTP_TOKEN]["file"] == "${HTTP_TOKEN_FILE:-http.token}"
    assert services()["prometheus"]["secrets"] == [HTTP_TOKEN]
    kept = PathSpec.from_lines("gitignore", (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines())
    for secret in ("deploy/container/http.token", "deploy/container/.env", "dashscope.key"):
        assert kept.match_file(secret), secret


def test_only_what_must_talk_can_talk() -> None:
    members: dict[str, set[str]] = {}
    for name, service in services().items():
        for network in service["networks"]:
            members.setdefault(network, set()).add(name)
    assert members == {"records": {"ingestor", "chroma"}, "metrics": {"ingestor", "prometheus"}}


def test_every_service_is_read_only_without_capabilities_and_says_how_it_is() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_prometheus_scrapes_as_the_example_does() -> None:
    ours = (CONTAINER / "prometheus.yml").read_text(encoding="utf-8")
    example = yaml.safe_load(SCRAPE.read_text(encoding="utf-8"))
    (job,) = example["scrape_configs"]
    job["authorization"]["credentials_file"] = f"/run/secrets/{HTTP_TOKEN}"
    job["static_configs"] = [{"targets": ["ingestor:8765"]}]
    assert yaml.safe_load(ours) == example
    for volume in services()["prometheus"]["volumes"]:
        if volume["type"] == "bind":
            assert (CONTAINER / volume["source"]).is_file()


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
    (wanted,) = [each for each in PYPROJECT["project"]["dependencies"] if each.startswith("chromadb")]
    assert services()["chroma"]["image"] == f"chromadb/chroma:{wanted.partition('>=')[2]}"


def test_the_guide_s_container_is_confined_as_the_compose_file_s_is() -> None:
    service = services()["ingestor"]
    (run,) = [shlex.split(line) for line in told("Container") if line.startswith("docker run ")]
    options = {
        "--restart": service["restart"],
        "--stop-timeout": service["stop_grace_period"].removesuffix("s"),
        "--tmpfs": service["tmpfs"][0],
        "--cap-drop": service["cap_drop"][0],
        "--security-opt": service["security_opt"][0],
    }
    for option, value in options.items():
        assert run[run.index(option) + 1] == value, option
    assert {"--init", "--read-only"} <= set(run)
    assert run[-1] == "ingestor"


def test_what_the_guide_chooses_for_the_compose_file_is_kept_for_the_next_command(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    (tmp_path / "watched_dir").mkdir()
    for line in told("Compose"):
        if line.startswith(("echo ", "printf ")):
            subprocess.run(
                ["sh", "-ec", line], cwd=tmp_path, env={"HOME": "/home/ann", "PWD": str(tmp_path)}, check=True
            )
    command: list[str | Path] = [tool("docker-compose"), "--file", "deploy/container/compose.yaml", "config"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WATCH_", "EMBEDDING_"))}
    done = subprocess.run(
        [*command, "--format", "json"], cwd=tmp_path, env=kept, capture_output=True, text=True, check=True
    )
    project = json.loads(done.stdout)
    (watched,) = [each for each in project["services"]["ingestor"]["volumes"] if each["target"] == "/watch"]
    assert watched["source"] == "/home/ann/notes"
    assert project["services"]["ingestor"]["environment"]["INGESTOR_EMBEDDING__PROVIDER"] == "dashscope"
    assert project["secrets"][API_KEY]["file"] == str(tmp_path / "dashscope.key")


def test_compose_itself_reads_the_compose_file(tmp_path: Path) -> None:
    subprocess.run([tool("docker-compose"), "--file", COMPOSE, "config", "--quiet"], check=True)
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text(encoding="utf-8").replace("cap_drop", "capdrop"), encoding="utf-8")
    done = subprocess.run(
        [tool("docker-compose"), "--file", broken, "config", "--quiet"], capture_output=True, check=False
    )
    assert b"capdrop" in done.stderr
