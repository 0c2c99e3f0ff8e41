"""What a scrape of a process gives."""

import httpx
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from kratos_sync.infrastructure.observability.definitions import Metric


def scrape(port: int) -> "Scrape":
    """What the process with that port exports now; nothing while it does not answer."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=60)
    except httpx.TransportError:
        return Scrape("")
    return Scrape(answer.text if answer.status_code == httpx.codes.OK else "")


class Scrape:
    """What one scrape of one process has given."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._families: dict[str, Family] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def has(self, metric: Metric) -> bool:
        """Whether the metric is there, with a value or not."""
        return self._family(metric) is not None

    def values(self, metric: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
        """Its values by those of its labels, in their order."""
        family = self._family(metric)
        return {
            tuple(sample.labels[name] for name in metric.labels): sample.value
            for sample in ([] if family is None else family.samples)
            if sample.name == metric.name + suffix
        }

    def value(self, metric: Metric, *labels: str) -> float | None:
        """One of its values; None if it is not there."""
        return self.values(metric).get(labels)

    @property
    def labels(self) -> set[str]:
        """The values of all labels."""
        return {
            value
            for family in self._families.values()
            for sample in family.samples
            for value in sample.labels.values()
        }

    def _family(self, metric: Metric) -> Family | None:
        is_counter = metric.kind == "counter"
        return self._families.get(metric.name.removesuffix("_total") if is_counter else metric.name)
