"""What is held about deploy/monitoring: Prometheus takes it, alerts fire, and what it speaks of is there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestor.adapters.ledger_census import Waiting
from ingestor.core.model import Priority
from ingestor.metrics.family import Kind
from ingestor.metrics.meter import FAMILIES, SHARED
from ingestor.settings import HttpSettings

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
RULES, RULES_TEST = MONITORING / "rules.yml", MONITORING / "rules_test.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
LABELS = {name: frozenset(labels) for name, (_, *labels) in SHARED.items()} | {
    family.name: frozenset({"source", *family.labels}) for family in FAMILIES
}
HISTOGRAMS = {family.name for family in FAMILIES if family.kind is Kind.HISTOGRAM}
SEEN = r"\b(ingestor_[a-z_]+)\b(?:\{([^}]*)\})?"


def promtool(*arguments: str, folder: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    return subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_prometheus_takes_the_configuration_and_its_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules.yml"):
        shutil.copyfile(MONITORING / name, tmp_path / name)
    (tmp_path / "ingestor.token").write_text("secret", encoding="utf-8")
    done = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_no_other_one_does() -> None:
    done = promtool("test", "rules", RULES_TEST.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_a_severity_a_summary_and_what_to_do() -> None:
    tested = RULES_TEST.read_text(encoding="utf-8")
    for alert in alerts():
        assert f'{{alertname="{alert["alert"]}"}}' in tested, alert["alert"]
        assert alert["labels"].keys() == {"severity"}
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"].keys() == {"summary", "action"}


def test_the_port_that_is_scraped_is_the_default_one() -> None:
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{HttpSettings().host}:{HttpSettings().port}"]}]


@pytest.mark.parametrize("file", [RULES, RULES_TEST, DASHBOARD], ids=lambda file: file.name)
def test_every_metric_that_is_spoken_of_exists_and_has_the_labels_that_are_asked_for(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace('\\"', '"')
    found = re.findall(SEEN, text)
    assert found
    for name, selector in found:
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        known = base if base in HISTOGRAMS else name
        assert known in LABELS, name
        asked = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)", selector))
        extra = {"instance", "job", "le"} if known in HISTOGRAMS else {"instance", "job"}
        assert asked <= LABELS[known] | extra, (name, selector)


def test_the_states_and_priorities_that_rules_name_are_those_that_there_are() -> None:
    text = RULES.read_text(encoding="utf-8")
    assert set(re.findall(r'state!?="(\w+)"', text)) <= set(Waiting)
    assert set(re.findall(r'priority="(\w+)"', text)) <= set(Priority)


def test_the_dashboard_is_whole_and_reads_from_the_prometheus_that_is_chosen_alone() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"], panel["title"]
    assert "://" not in DASHBOARD.read_text(encoding="utf-8")


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    ranges = {"$__rate_interval": "5m", "$__range": "6h"}
    rules = []
    for number, expression in enumerate(expressions()):
        for variable, span in ranges.items():
            expression = expression.replace(variable, span)  # noqa: PLW2901 - the same query, as Grafana sends it
        rules.append({"record": f"query:{number}", "expr": expression})
    assert rules
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", "queries.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_metrics_has_every_metric_and_no_other() -> None:
    shared = [(name, "gauge", labels, meaning) for name, (meaning, *labels) in SHARED.items()]
    of_sources = [(each.name, each.kind.value, ["source", *each.labels], each.meaning) for each in FAMILIES]
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in (*shared, *of_sources)
    ]
    text = (MONITORING / "README.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `ingestor_")] == rows


def test_every_file_beside_the_rules_is_told_of() -> None:
    text = (MONITORING / "README.md").read_text(encoding="utf-8")
    for file in MONITORING.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in text, file.name
