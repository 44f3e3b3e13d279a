"""Scraping: the metrics of a running daemon, as Prometheus would read them."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Scraped:
    """One answer; a sample is found by its name and its labels, an empty label being none."""

    text: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float | None:
        """A sample; None when it is missing."""
        return self.samples.get((f"ingestor_{name}", frozenset(labels.items())))

    def since(self, before: "Scraped", *names: str) -> dict[str, float]:
        """What has changed of these metrics since then: `name value value…` -> by how much."""
        grown = {key: value - before.samples.get(key, 0.0) for key, value in self.samples.items()}
        return {
            " ".join([name.removeprefix("ingestor_"), *(value for _, value in sorted(labels))]): by
            for (name, labels), by in grown.items()
            if by and name.removeprefix("ingestor_") in names
        }


def scrape(url: str, token: str = "") -> Scraped:
    """Everything that a daemon tells."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{url}/metrics", headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    samples = {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    return Scraped(answer.text, samples)
