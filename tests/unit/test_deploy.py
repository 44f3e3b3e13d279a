"""What can be held about deployment where neither a container engine nor a booted systemd runs."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestor.adapters.instance import Instance, InstanceRecord
from ingestor.settings import load_settings, setting_names, variable

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd/ingestor.service"
COMPOSE = DEPLOY / "container/compose.yaml"
DOCKERFILE = DEPLOY / "container/Dockerfile"
HEALTHCHECK = DEPLOY / "container/healthcheck.py"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it is, but for a command and a user that exist on this machine."""
    text = UNIT.read_text(encoding="utf-8")
    text = text.replace("/opt/ingestor/bin/ingestor", "/bin/true").replace(
        "=ingestor\nGroup=ingestor", "=daemon\nGroup=daemon"
    )
    copy = tmp_path / "ingestor.service"
    copy.write_text(text, encoding="utf-8")
    return copy


def systemd_analyze(*arguments: str | Path) -> str:
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_unit_is_clean(unit: Path) -> None:
    told = systemd_analyze("verify", "--recursive-errors=no", "--man=no", unit)
    assert unit.name not in told, told


def test_the_unit_is_sandboxed(unit: Path) -> None:
    told = systemd_analyze("security", "--offline=true", "--no-pager", unit)
    (overall,) = [line for line in told.splitlines() if "Overall exposure level" in line]
    assert float(overall.split(":")[1].split()[0]) <= 1.5, overall


def test_the_unit_names_settings_that_exist() -> None:
    text = UNIT.read_text(encoding="utf-8")
    known = {variable(name) for name in setting_names()}
    named = {
        word.split("=")[1] for word in text.split() if word.startswith(("Environment=INGESTOR", "LoadCredential="))
    }
    assert named
    assert named <= known


def test_the_units_settings_file_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    file = DEPLOY / "systemd/ingestor.toml"
    settings = load_settings(file).settings
    assert settings.watch_dir == Path("/srv/ingestor")
    assert f"RequiresMountsFor={settings.watch_dir}\n" in UNIT.read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def test_the_compose_file_names_settings_that_exist() -> None:
    ingestor = compose()["services"]["ingestor"]
    known = {variable(name) for name in setting_names()}
    assert set(ingestor["environment"]) <= known
    assert set(ingestor["secrets"]) <= known


def test_the_compose_file_publishes_nothing_beyond_this_machine() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_the_chroma_server_is_of_the_clients_release() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [each for each in project["dependencies"] if each.startswith("chromadb")]
    image = compose()["services"]["chroma"]["image"]
    assert image.partition(":")[2] == wanted.partition(">=")[2]


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker client is not installed")
def test_docker_itself_reads_the_compose_file() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the docker client has no compose plug-in")
    done = subprocess.run(
        ["docker", "compose", "--file", COMPOSE, "config", "--quiet"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_image_copies_only_what_the_builder_gets() -> None:
    ignored = (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [
        source
        for line in DOCKERFILE.read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (DEPLOY.parent / source).exists(), source
        assert f"!{source}" in ignored


def test_the_image_is_not_run_as_root_and_is_watched() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert "\nUSER 10001:10001\n" in text
    assert "\nHEALTHCHECK " in text


def health(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # Run by the interpreter beside which the `ingestor` command lies, as in the image.
    return subprocess.run(
        [sys.executable, HEALTHCHECK], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_health_is_a_daemon_that_lives(tmp_path: Path) -> None:
    environment = {"INGESTOR_DATA_DIR": str(tmp_path), "INGESTOR_WATCH_DIR": str(tmp_path)}
    without = health(environment)
    assert (without.returncode, without.stderr.strip()) == (1, "no daemon is running")
    instance = Instance(tmp_path)
    instance.acquire()
    instance.announce(InstanceRecord(os.getpid(), "run", str(tmp_path), started_seconds=0.0))
    assert health(environment).returncode == 0
    instance.announce(InstanceRecord(os.getpid(), "sync", str(tmp_path), started_seconds=0.0))
    assert "no daemon" in health(environment).stderr
    instance.release()
