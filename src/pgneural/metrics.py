"""A worker's figures for Prometheus: what waits in the database, and what this worker has done.

A scrape asks the database at that moment; where it cannot be reached, ``pgneural_up`` is 0 and the worker's own
counters are still told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from pgneural.store.monitoring import SpaceStatus, statuses
from pgneural.worker import Worker

LABELS = {"source": "source", "attribute": "attribute", "space": "name", "state": "state"}

GAUGES = {
    "pending": "Rows that changed and are not encoded yet",
    "oldest_seconds": "How long the oldest of them has waited",
    "failed": "Rows that were given up",
}

COUNTERS = {
    "rows": "Rows that this worker stored",
    "chunks_encoded": "Chunks that this worker encoded",
    "chunks_reused": "Chunks that had a vector already",
    "encode_seconds": "Time that this worker spent encoding",
    "write_seconds": "Time that this worker spent storing",
}


class Figures(Collector):
    """Collects the figures of a worker when they are asked for."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._known: dict[int, SpaceStatus] = {}

    def collect(self) -> Iterator[Metric]:
        """Return the figures."""
        try:
            with self._worker.engine.connect() as connection:
                found = statuses(connection)
            self._known = {status.id: status for status in found}
        except SQLAlchemyError:
            found = []
            yield GaugeMetricFamily("pgneural_up", "Whether the database can be reached", value=0)
        else:
            yield GaugeMetricFamily("pgneural_up", "Whether the database can be reached", value=1)
        for name, description in GAUGES.items():
            family = GaugeMetricFamily(f"pgneural_{name}", description, labels=list(LABELS))
            for status in found:
                family.add_metric(_labels(status), getattr(status, name) or 0)
            yield family
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        totals = self._worker.totals
        for name, description in COUNTERS.items():
            family = CounterMetricFamily(f"pgneural_worker_{name}", description, labels=list(LABELS))
            for space, total in totals.items():
                if space in self._known:
                    family.add_metric(_labels(self._known[space]), getattr(total, name))
            yield family


def _labels(status: SpaceStatus) -> list[str]:
    return [str(getattr(status, name)) for name in LABELS.values()]


def serve(worker: Worker, port: int, address: str = "127.0.0.1") -> Any:
    """Answer at ``http://address:port/metrics`` from a thread; return the server."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(worker))
    server, _ = start_http_server(port, address, registry)
    return server


def close(server: Any) -> None:
    """End what `serve` began."""
    server.shutdown()
    server.server_close()
