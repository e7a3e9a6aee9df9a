"""What a server tells of itself: metrics for Prometheus, and a line in JSON for each request. Neither holds images.

All requests to all replicas pass the front, so that one endpoint and one log cover them all.
"""

import contextlib
import datetime
import json
import logging
import logging.handlers
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from export.calls import Reply, Seconds
from export.deployment import Served

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Monitoring:
    """The metrics and the access log of one server.

    Args:
        access_log: the file that requests are written to; "-": standard error; None: none.
        with_addresses: whether the log names the clients' addresses.
    """

    def __init__(self, access_log: str | None = None, with_addresses: bool = False):
        self.with_addresses = with_addresses
        self.log = _access_log(access_log) if access_log else None
        self.registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        self.requests = Counter(
            "tf_reid_requests",
            "Requests, by their status.",
            ("protocol", "model", "version", "status"),
            registry=registry,
        )
        self.images = Counter("tf_reid_images", "Images that were answered.", ("model", "version"), registry=registry)
        self.refusals = Counter(
            "tf_reid_refusals", "Requests without an answer.", ("protocol", "reason"), registry=registry
        )
        self.received = Counter("tf_reid_received_bytes", "Bytes of requests.", ("protocol",), registry=registry)
        self.seconds = Histogram(
            "tf_reid_request_seconds",
            "From a whole request to its answer.",
            ("protocol", "model"),
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "tf_reid_queue_seconds", "That a request waits for a replica.", buckets=SECONDS, registry=registry
        )
        self.batch_seconds = Histogram(
            "tf_reid_batch_seconds",
            "Of a batch in a replica, by part: read and decode, wait for the model, the model, write.",
            ("part",),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_requests = Histogram("tf_reid_batch_requests", "In a batch.", buckets=SIZES, registry=registry)
        self.batch_images = Histogram("tf_reid_batch_images", "In a batch.", buckets=SIZES, registry=registry)
        self.sent_again = Counter(
            "tf_reid_sent_again", "Requests that a lost replica had, sent to another.", registry=registry
        )
        self.labels = Gauge("tf_reid_label_version", "The version of a label.", ("model", "label"), registry=registry)

    def watch(self, front: Any) -> None:
        """Tell of a `front.Front` how much waits, and whether it is ready."""
        gauges = {
            "tf_reid_waiting_requests": ("Requests that wait for a replica.", lambda: front.waiting),
            "tf_reid_outstanding_batches": ("Batches that replicas have.", lambda: front.outstanding),
            "tf_reid_running_replicas": ("Replicas that can be asked.", lambda: front.replicas.running),
            "tf_reid_ready": ("1 where requests may come; 0 where not.", lambda: not front.why_not_ready()),
        }
        for name, (about, value) in gauges.items():
            Gauge(name, about, registry=self.registry).set_function(value)

    def served(self, served: Mapping[str, Served]) -> None:
        """Tell which version each label has."""
        self.labels.clear()
        for model, (_, labels) in served.items():
            for label, version in labels.items():
                self.labels.labels(model, label).set(version)

    def batch(self, requests: int, images: int, waited: Sequence[float], seconds: Seconds) -> None:
        """Count a batch that was answered."""
        self.batch_requests.observe(requests)
        self.batch_images.observe(images)
        for one in waited:
            self.queue_seconds.observe(one)
        for part, taken in seconds._asdict().items():
            self.batch_seconds.labels(part).observe(taken)

    def request(
        self, identifier: str, protocol: str, target: str, reply: Reply, size: int, seconds: float, address: str
    ) -> None:
        """Count a request and write its line.

        Args:
            target: the method, such as Predict or POST.
            size: bytes of the request.
            address: the client's.
        """
        version = str(reply.version or "")
        self.requests.labels(protocol, reply.model, version, reply.code).inc()
        self.received.labels(protocol).inc(size)
        self.seconds.labels(protocol, reply.model).observe(seconds)
        if reply.code == "OK":
            self.images.labels(reply.model, version).inc(reply.images)
        else:
            self.refusals.labels(protocol, reply.reason).inc()
        if self.log is None:
            return
        line = {
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
            "request": identifier,
            "protocol": protocol,
            "method": target,
            "model": reply.model,
            "version": reply.version,
            "images": reply.images,
            "bytes": size,
            "milliseconds": round(1000 * seconds, 1),
            "status": reply.code,
            "reason": reply.reason,
        }
        if self.with_addresses:
            line["address"] = address
        self.log.info(json.dumps(line))

    def metrics(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)

    def close(self) -> None:
        if self.log is not None:
            for handler in list(self.log.handlers):
                self.log.removeHandler(handler)
                with contextlib.suppress(OSError):
                    handler.close()


def _access_log(name):
    """A logger whose file may be renamed while it is written, as logrotate does it."""
    logger = logging.getLogger("tf_reid.access")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr) if name == "-" else logging.handlers.WatchedFileHandler(name)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger
