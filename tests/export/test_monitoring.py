"""Metrics and the access log of a server, and the dashboard that shows them."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from export import deployment, monitoring
from export.calls import Reply
from export.limits import REASONS


def names_of(one):
    """The names of all values of the metrics' text."""
    families = text_string_to_metric_families(one.metrics().decode())
    return {sample.name for family in families for sample in family.samples}


def test_the_dashboard_shows_metrics_that_are_there():
    one = monitoring.Monitoring()
    front = SimpleNamespace(waiting=0, outstanding=0, replicas=SimpleNamespace(running=1), why_not_ready=lambda: "")
    one.watch(front)
    one.served({"reid": deployment.Served([1], {"stable": 1})})
    one.request("1", "rest", "POST", Reply("OK", images=1, model="reid", version=1), 10, 0.1, "")
    one.request("2", "grpc", "Predict", Reply("NOT_FOUND", reason="unknown_model"), 10, 0.1, "")
    one.batch(1, 1, [0.01], monitoring.Seconds(0.1, 0.1, 0.1, 0.1))
    there = names_of(one)
    text = (Path(deployment.__file__).parent / "serving" / "grafana.json").read_text()
    shown = set(re.findall(r"(?:tf_reid|process)_\w+", " ".join(re.findall(r'"expr": "(.*)"', text))))
    assert (
        shown <= there and {name for name in there if re.fullmatch(r"tf_reid_\w+_total|tf_reid_ready", name)} <= shown
    )
    places = [tuple(panel["gridPos"].values()) for panel in json.loads(text)["panels"]]
    assert len(set(places)) == len(places) > 10


def test_the_documentation_names_every_metric_and_reason():
    page = (Path(deployment.__file__).parent.parent / "docs" / "deploy.md").read_text()
    one = monitoring.Monitoring()
    families = [name.removesuffix("_created") for name in one.registry._names_to_collectors]
    for name in {
        family
        for family in families
        if family.startswith("tf_reid_") and not family.endswith(("_sum", "_count", "_bucket"))
    }:
        assert name in page, name
    assert not [reason for reason in REASONS if f"`{reason}`" not in page]


def test_a_line_of_the_access_log_holds_the_address_only_where_it_is_asked_for(tmp_path):
    for with_addresses in (False, True):
        one = monitoring.Monitoring(str(tmp_path / "access.log"), with_addresses)
        reply = Reply("INVALID_ARGUMENT", sentence="Image 0 is empty.", reason="undecodable")
        one.request("7", "grpc", "Predict", reply, 12, 0.0123, "ipv4:192.0.2.1:5000")
        one.close()
    first, second = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert first.pop("time") and first == {
        "request": "7",
        "protocol": "grpc",
        "method": "Predict",
        "model": "",
        "version": 0,
        "images": 0,
        "bytes": 12,
        "milliseconds": 12.3,
        "status": "INVALID_ARGUMENT",
        "reason": "undecodable",
    }
    assert second["address"] == "ipv4:192.0.2.1:5000"
