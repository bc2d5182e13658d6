"""Monitoring, gateway and chat: up with the stack, fed with real figures, gone with it."""

from __future__ import annotations

import pytest
import requests

from components import ports
from components.plan.dashboards import dashboards
from ops import look
from ops.project import Project
from ops.stack import of
from simulator import sparks
from tests.e2e.conftest import left_behind, step

pytestmark = pytest.mark.e2e

KEY, ENGINE_KEY = "sk-of-alice-0123456789", "key-of-the-engine-itself"


def ask(spark, url):
    """What an address on the Spark's loopback answers."""
    return requests.models.complexjson.loads(sparks.on(spark, f"curl -sS --globoff '{url}'"))


def query(spark, text):
    found = sparks.on(
        spark, f"curl -sS --data-urlencode query@- http://127.0.0.1:{ports.PROMETHEUS}/api/v1/query", stdin=text
    )
    answer = requests.models.complexjson.loads(found)
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def looks(spark):
    """How many looks at its targets Prometheus has made, in all."""
    return float(query(spark, "sum(count_over_time(up[1h]))")[0]["value"][1])


def chat(base, model, key, **more):
    order = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, **more}
    return requests.post(f"{base}/chat/completions", json=order, headers=bearer(key), timeout=30)


def bearer(key):
    return {"Authorization": f"Bearer {key}"} if key else {}


def opens_for_its_key_alone(gateway, model):
    """Of LiteLLM, or what stands in for it."""
    said = chat(gateway, model, KEY).json()["choices"][0]["message"]["content"]
    for key in ("sk-of-somebody-else-0123", None):
        refused = chat(gateway, model, key)
        assert refused.status_code == 401
        assert "this key opens nothing here" in refused.json()["error"]["message"]
    listed = requests.get(f"{gateway}/models", headers=bearer(KEY), timeout=30).json()["data"]
    assert [one["id"] for one in listed] == [model]
    assert requests.get(f"{gateway}/models", timeout=30).status_code == 401
    assert chat(gateway, "another", KEY).status_code == 400

    # LiteLLM takes such requests, and answers them with the engine's key or in the head's name.
    elsewhere = {
        "model": f"hosted_vllm/{model}",
        "api_base": "http://127.0.0.1:9/v1",
        "api_key": "os.environ/UPSTREAM_KEY",
    }
    for more in (
        {"user_config": {"model_list": [{"model_name": model, "litellm_params": elsewhere}]}},
        {"fallbacks": [elsewhere]},
    ):
        assert "not for a request to say" in chat(gateway, model, KEY, **more).json()["error"]["message"]
    root = gateway.removesuffix("/v1")
    for key in (KEY, None):
        for path in ("health/test_connection", "config/update", "key/generate", "login"):
            order = {"litellm_params": elsewhere}
            refused = requests.post(f"{root}/{path}", json=order, headers=bearer(key), timeout=30)
            assert (path, refused.status_code) == (path, 404)
        for path in ("", "openapi.json", "ui", "memory-usage-in-mem-cache-items"):
            refused = requests.get(f"{root}/{path}", headers=bearer(key), timeout=30)
            assert (path, refused.status_code) == (path, 404)
    return said


@pytest.mark.long
def test_every_query_of_the_dashboards_has_an_answer(alone, third):
    before = left_behind(third)

    step("up with monitoring")
    alone.configure(engine="sglang", monitoring=True)
    alone.up()
    assert alone.is_clean()
    alone.complete()

    step("Prometheus looks at all targets")
    up = "count(up == 1)"
    sparks.wait_for(lambda: [r["value"][1] for r in query(third, up)] == ["3"], "every target to be scraped")
    # A rate needs two looks, and the second one something new.
    for _ in range(2):
        alone.complete()
        now = looks(third)
        sparks.wait_for(lambda now=now: looks(third) > now + 3, "another look")

    step("each panel shows something")
    boards = dashboards("sglang")
    for board in boards.values():
        for panel in board["panels"]:
            for target in panel["targets"]:
                assert query(third, target["expr"]), f"{board['title']}, {panel['title']}: {target['expr']}"
    found = requests.get(f"http://{third.address}:{ports.GRAFANA}/api/search", timeout=5).json()
    assert {one["title"] for one in found} == {board["title"] for board in boards.values()}

    step("nothing is left behind")
    alone.destroy()
    assert left_behind(third) == before


def test_the_gateway_opens_for_its_keys_alone_and_the_chat_knows_the_model(alone, third):
    step("without keys: refused")
    alone.configure(gateway=True, chat=True)
    assert "gatewayKeys: is empty, so nobody could use the gateway" in alone.refusal().replace("\\n", "\n")

    step("up with a key")
    configure(alone)
    alone.up()
    assert alone.is_clean()
    outputs = alone.outputs()
    gateway, model = outputs["beside"]["gateway"], outputs["model"]
    assert look.status(of(Project(alone.folder, alone.environment), alone.name))["pages"] == outputs["beside"]

    step("the gateway opens for that key alone")
    sparks.wait_for(lambda: answers(outputs["beside"]["chat"]) and answers(f"{gateway}/models"), "gateway and chat")
    assert opens_for_its_key_alone(gateway, model)
    assert requests.get(outputs["beside"]["chat"], timeout=5).json()["models"] == [model]

    step("no key shows in a container")
    shown = sparks.on(third, "docker ps -aq | xargs docker inspect")
    assert KEY not in shown
    assert ENGINE_KEY not in shown

    step("another model")
    # A change of model asks the gateway and no more of the rest.
    configure(alone, model="gpt-oss-20b")
    changed = alone.preview()
    assert changed["cluster-beside-gateway-spark-3"] == "replace"
    assert "cluster-beside-chat-spark-3" not in changed


def configure(stack, **more):
    stack.configure(gateway=True, chat=True, **more)
    for words in (["--path", "gatewayKeys.alice", KEY], ["apiKey", ENGINE_KEY]):
        stack("config", "set", "--secret", *words, "--stack", stack.name)


def answers(url):
    try:
        return requests.get(url, timeout=5).status_code in (200, 401)
    except requests.ConnectionError:
        return False
