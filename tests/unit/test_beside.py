"""What runs beside the server: only what was asked for, never open where it need not be, and no secret in sight."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from components.plan import beside
from components.plan.checks import used_ports
from components.plan.dashboards import ENGINES, dashboards
from components.plan.decide import before_model
from components.problems import Refused
from tests.unit.build import IDENTITY, pair, plan, settings

METRICS = yaml.safe_load((Path(__file__).parent / "metrics.yaml").read_text())
KEYS = {"alice": "sk-of-alice-0123456789"}


def test_nothing_runs_beside_the_server_unless_asked_for():
    assert plan().extras == ()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_the_dashboards_ask_for_names_that_the_engine_has(engine):
    known = METRICS[engine]
    names = {*known["gauges"], *known["counters"], *(f"{name}_bucket" for name in known["histograms"])}
    asked = re.findall(rf"{engine}:(\w+)", json.dumps(dashboards(engine)["engine"]))
    assert asked
    assert set(asked) <= names


def lost(ours, theirs, path="$"):
    """Where something of `ours` is not in `theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [where for key in ours for where in lost(ours[key], theirs.get(key), f"{path}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [where for n, pair in enumerate(zip(ours, theirs, strict=True)) for where in lost(*pair, f"{path}[{n}]")]
    return [] if ours == theirs else [path]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's types are for Python 3.11 and later")
@pytest.mark.parametrize("engine", [*ENGINES, "trtllm"])
def test_the_dashboards_are_what_grafana_calls_one(engine):
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    for name, made in dashboards(engine).items():
        # What its schema does not know it does not keep.
        theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(made)))))
        assert lost(made, theirs) == [], name


def test_an_engine_without_metrics_has_no_dashboard_and_is_not_scraped():
    made = plan(settings(engine="trtllm", monitoring=True))
    assert list(dashboards("trtllm")) == ["cluster"]
    (prometheus,) = [extra for extra in made.extras if extra.role == "prometheus"]
    jobs = json.loads(next(iter(prometheus.files.values())))["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["node", "gpu"]


def test_exporters_listen_on_the_fabric_and_prometheus_on_loopback():
    made = plan(settings(monitoring=True))
    listens = {(e.role, e.node): word for e in made.extras for word in e.command if "listen-address" in word}
    assert listens["node-exporter", "spark-2"] == "--web.listen-address=192.168.177.2:9100"
    assert listens["prometheus", "spark-1"] == "--web.listen-address=127.0.0.1:9090"
    alone = plan(settings(1, monitoring=True))
    assert "--web.listen-address=127.0.0.1:9835" in [word for extra in alone.extras for word in extra.command]


def test_sglang_shows_metrics_when_they_are_wanted():
    assert "--enable-metrics" in plan(settings(engine="sglang", monitoring=True)).ranks[0].command
    quiet = settings(engine="sglang", serving={"stuckAfter": 0})
    assert "--enable-metrics" not in plan(quiet).ranks[0].command
    # A stuck one is told from a busy one by them.
    assert "--enable-metrics" in plan(settings(engine="sglang")).ranks[0].command


def test_keys_are_in_no_part_of_the_plan():
    chosen = settings(gateway=True, chat=True, gatewayKeys=KEYS, apiKey="key-of-the-engine")
    made = repr(plan(chosen).extras)
    assert "sk-of-alice" not in made
    assert "key-of-the-engine" not in made
    assert json.loads(beside.secrets(chosen)[beside.KEYS]) == KEYS


@pytest.mark.parametrize(
    ("keys", "words"), [({}, "is empty, so nobody could use the gateway"), ({"bob": "short"}, "too short .*: bob")]
)
def test_a_gateway_that_nobody_or_everybody_could_use_is_refused(keys, words):
    with pytest.raises(Refused, match=words):
        before_model(settings(gateway=True, gatewayKeys=keys), pair(), IDENTITY)


def test_ports_beside_the_server_are_looked_at_too():
    chosen = settings(monitoring=True, gateway=True, chat=True, gatewayKeys=KEYS)
    assert {3000, 9090, 9100, 9835, 4000, 8080} <= {port for _, port in used_ports(chosen)}
    listening = {"spark-1": pair()["spark-1"].model_copy(update={"listening": (3000,)}), "spark-2": pair()["spark-2"]}
    with pytest.raises(Refused, match=r"port 3000 is in use by another program(?s:.*)set beside\.grafanaPort"):
        before_model(chosen, listening, IDENTITY)


def test_what_runs_beside_the_server_stays_when_room_is_made():
    rooms = plan(settings(monitoring=True)).evictions
    assert [step.inputs["beside"] for step in rooms] == [
        ["gpu-exporter", "grafana", "node-exporter", "prometheus"],
        ["gpu-exporter", "node-exporter"],
    ]
