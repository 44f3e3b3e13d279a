"""What is deployed to Kubernetes, as its own kustomize builds it and its own schemas read it. No cluster runs here."""

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestor.core.errors import ConfigError
from ingestor.settings import load_settings, setting_names, variable
from tests.tools import tool

PROJECT = Path(__file__).parents[2]
KUBERNETES = PROJECT / "deploy/kubernetes"
KUSTOMIZATIONS = [file.parent.relative_to(KUBERNETES).as_posix() for file in KUBERNETES.rglob("kustomization.yaml")]
SECRET = KUBERNETES / "base/secret.example.yaml"
COMPOSE = PROJECT / "deploy/container/compose.yaml"
RELEASE = "1.37"
"""Of Kubernetes; its schemas are those of the package kubernetes-validate."""
OLDEST = "1.29"


@functools.cache
def built(name: str) -> str:
    """What kustomize makes of a kustomization."""
    command: list[str | Path] = [tool("kubectl"), "kustomize", KUBERNETES / name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def resources(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """The resources of a kind, by name."""
    found = [each for each in yaml.safe_load_all(built(name)) if each["kind"] == kind]
    return {each["metadata"]["name"]: each for each in found}


def pods(name: str) -> Iterator[dict[str, Any]]:
    for kind in ("Deployment", "StatefulSet"):
        for workload in resources(name, kind).values():
            yield workload["spec"]["template"]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def verdict(text: str, folder: Path, release: str) -> subprocess.CompletedProcess[str]:
    file = folder / "built.yaml"
    file.write_text(text, encoding="utf-8")
    command: list[str | Path] = [
        tool("kubernetes-validate"),
        "--strict",
        "--quiet",
        "--kubernetes-version",
        release,
        file,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("release", [OLDEST, RELEASE])
@pytest.mark.parametrize("name", sorted(KUSTOMIZATIONS))
def test_the_schemas_of_kubernetes_know_every_field(name: str, release: str, tmp_path: Path) -> None:
    done = verdict(built(name), tmp_path, release)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("runAsNonRoot:", "runsAsNonRoot:"),
        ("replicas: 1", "replicas: one"),
        ("maxUnavailable: 1", "maxUnavailable: []"),
    ],
    ids=["name", "type", "choice"],
)
def test_a_fault_is_seen_by_the_schemas(right: str, wrong: str, tmp_path: Path) -> None:
    assert right in built("base")
    assert verdict(built("base").replace(right, wrong), tmp_path, RELEASE).returncode != 0


def test_the_example_of_a_secret_is_one_and_is_not_deployed(tmp_path: Path) -> None:
    assert verdict(SECRET.read_text(encoding="utf-8"), tmp_path, RELEASE).returncode == 0
    for name in KUSTOMIZATIONS:
        assert resources(name, "Secret") == {}
    named = set(yaml.safe_load(SECRET.read_text(encoding="utf-8"))["stringData"])
    assert named <= {variable(name) for name in setting_names()}


def mounted(folder: Path, files: dict[str, str]) -> Path:
    """Files as a cluster's node lays out a Secret or a ConfigMap: links to a folder that is changed as a whole."""
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    for name, text in files.items():
        (folder / "..2026" / name).write_text(text, encoding="utf-8")
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@pytest.mark.parametrize("name", sorted(KUSTOMIZATIONS))
def test_the_daemon_reads_what_its_pod_mounts(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (settings,) = resources(name, "ConfigMap").values()
    monkeypatch.chdir(mounted(tmp_path / "etc", settings["data"]))
    secret = yaml.safe_load(SECRET.read_text(encoding="utf-8"))["stringData"]
    monkeypatch.setenv("INGESTOR_SECRETS_DIR", str(mounted(tmp_path / "secrets", secret)))
    loaded = load_settings().settings
    assert loaded.http.token is not None
    assert loaded.http.token.get_secret_value() == secret["INGESTOR_HTTP__TOKEN"]
    assert loaded.chroma.host in resources(name, "Service")
    for pod in pods(name):
        ports = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        assert set(ports.values()) <= {loaded.http.port, loaded.chroma.port}


def test_what_a_pod_mounts_is_where_the_daemon_looks() -> None:
    (pod,) = [pod for pod in pods("base") if container(pod)["name"] == "ingestor"]
    places = {mount["name"]: mount for mount in container(pod)["volumeMounts"]}
    assert {name: mount["mountPath"] for name, mount in places.items()} == {
        "settings": "/etc/ingestor",
        "secrets": "/run/secrets/ingestor",
        "watched": "/watch",
        "ingestor": "/data",
        "temporary": "/tmp",  # noqa: S108 - where a program looks that is told of no other
    }
    assert {"name": "INGESTOR_SECRETS_DIR", "value": places["secrets"]["mountPath"]} in container(pod)["env"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["watched"]["persistentVolumeClaim"]["readOnly"] is places["watched"]["readOnly"] is True
    # In memory it would be `medium: Memory`, which some nodes mount so that nothing there may be run.
    assert set(volumes["temporary"]["emptyDir"]) == {"sizeLimit"}
    (settings,) = resources("base", "ConfigMap")
    assert volumes["settings"]["configMap"]["name"] == settings


def test_the_variables_of_services_would_be_taken_for_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGESTOR_PORT", "tcp://10.0.0.1:8765")
    with pytest.raises(ConfigError):
        load_settings()
    for pod in pods("base"):
        assert pod["spec"]["enableServiceLinks"] is False


def test_there_is_never_a_second_daemon() -> None:
    spec = resources("base", "Deployment")["ingestor"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert resources("base", "StatefulSet")["chroma"]["spec"]["replicas"] == 1


def test_pods_are_what_the_restricted_standard_allows() -> None:
    labels = resources("base", "Namespace")["ingestor"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    accounts = resources("base", "ServiceAccount")
    for pod in pods("base"):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == set(container(pod)["resources"])
        claims = [volume for volume in spec["volumes"] if "hostPath" in volume]
        assert not claims


def test_probes_ask_what_they_are_meant_for() -> None:
    (pod,) = [pod for pod in pods("base") if container(pod)["name"] == "ingestor"]
    asked = {name: container(pod)[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def selects(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    return bool(selector["matchLabels"].items() <= pod["metadata"]["labels"].items())


@pytest.mark.parametrize("name", sorted(KUSTOMIZATIONS))
def test_every_selector_finds_one_pod_and_every_port_has_a_name_there(name: str) -> None:
    every = list(pods(name))
    for kind in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
        for resource in resources(name, kind).values():
            selector = resource["spec"]["selector"]
            selector = selector if "matchLabels" in selector else {"matchLabels": selector}
            (found,) = [pod for pod in every if selects(selector, pod)]
            names = {port["name"] for port in container(found)["ports"]}
            assert {port["targetPort"] for port in resource["spec"].get("ports", ())} <= names


def test_a_pod_says_and_hears_nothing_but_what_is_listed() -> None:
    policies = {name: policy["spec"] for name, policy in resources("overlays/dashscope", "NetworkPolicy").items()}
    assert policies.pop("nothing") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    heard = {
        name: [port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]]
        for name, spec in policies.items()
    }
    said = {
        name: [port["port"] for rule in spec.get("egress", ()) for port in rule["ports"]]
        for name, spec in policies.items()
    }
    assert heard == {"ingestor": ["http"], "chroma": ["chroma"], "ingestor-to-provider": []}
    assert said == {"ingestor": ["chroma", 53, 53], "chroma": [], "ingestor-to-provider": [443]}
    for spec in policies.values():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule.get("from") or rule.get("to")


def test_a_node_can_be_emptied() -> None:
    for budget in resources("base", "PodDisruptionBudget").values():
        assert budget["spec"]["maxUnavailable"] == 1
        # Else a pod that is not ready - its first comparison, Chroma away - is refused for as long as it is not.
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_chroma_is_the_one_of_the_compose_file() -> None:
    (pod,) = [pod for pod in pods("base") if container(pod)["name"] == "chroma"]
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert container(pod)["image"] == services["chroma"]["image"]
