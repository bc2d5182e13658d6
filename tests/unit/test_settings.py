"""Config is read once, and every mistake is reported at once with the key and the way to mend it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.problems import Refused
from components.settings import load
from tests.unit.build import KEY, settings


def refusal(**config: object) -> str:
    with pytest.raises(Refused) as caught:
        settings(**config)
    return str(caught.value)


def test_everything_but_nodes_keys_and_names_has_a_default():
    made = settings()
    assert (made.serving.port, made.ray.port, made.weights.keep, made.containers.privileged) == (
        None,
        6379,
        True,
        False,
    )
    assert made.head.name == "spark-1"


def test_all_mistakes_are_reported_together():
    text = refusal(nodes=[{"name": "a"}], serving={"port": "many", "speed": 3}, colour="red")
    assert text.startswith("4 things need attention before anything is changed\n")
    assert "dgx-spark:colour: is not a setting" in text
    assert "dgx-spark:nodes[0].host: is missing\n    → pulumi config set --path 'nodes[0].host' ADDRESS" in text
    assert "dgx-spark:serving.port: input should be a valid integer" in text
    assert "(it is 'many')" in text
    assert "dgx-spark:serving.speed: is not a setting\n    → remove it: pulumi config rm --path 'serving.speed'" in text


def test_a_key_that_is_no_json_is_named():
    assert "dgx-spark:serving: is 'fast', not an object" in refusal(serving="fast")


def test_no_nodes_is_one_clear_problem():
    with pytest.raises(Refused, match=r"dgx-spark:nodes: is missing"):
        load({"dgx-spark:engine": "vllm", "dgx-spark:model": "m"})


def test_two_nodes_with_one_address_are_refused():
    nodes = [{"name": "a", "host": "h"}, {"name": "b", "host": "h"}]
    assert "h is used as host of more than one node" in refusal(nodes=nodes, ssh={"hostKeys": {"a": KEY, "b": KEY}})


def test_a_missing_host_key_comes_with_the_commands_that_get_it():
    text = refusal(ssh={"hostKeys": {"spark-1": KEY}})
    assert "ssh.hostKeys.spark-2: is missing" in text
    assert "ssh-keyscan -t ed25519 10.0.0.2" in text


def test_secrets_show_in_no_error_and_no_repr():
    text = refusal(hfToken="hf_private", nodes=[])
    assert "hf_private" not in text
    assert "hf_private" not in repr(settings(hfToken="hf_private"))


TOKENS = {"hfToken": "hf_private", "apiKey": "", "gatewayKeys": json.dumps({"alice": "sk-1", "bob": "sk-2"})}
WITH_TOKENS = {
    f"dgx-spark:{key}": value
    for key, value in {
        "engine": "vllm", "model": "m", "nodes": '[{"name": "a", "host": "h"}]',
        "ssh": json.dumps({"hostKeys": {"a": KEY}}), **TOKENS,
    }.items()
}  # fmt: skip


def test_a_token_that_is_not_encrypted_is_refused_with_the_command_that_encrypts_it():
    with pytest.raises(Refused) as caught:
        load(WITH_TOKENS, encrypted=[])
    assert [(problem.at, problem.fix) for problem in caught.value.problems] == [
        ("dgx-spark:gatewayKeys.alice", "pulumi config set --secret --path gatewayKeys.alice …"),
        ("dgx-spark:gatewayKeys.bob", "pulumi config set --secret --path gatewayKeys.bob …"),
        ("dgx-spark:hfToken", "pulumi config set --secret hfToken …"),
    ]
    assert "hf_private" not in str(caught.value)


def test_encrypted_tokens_and_empty_ones_are_taken():
    made = load(WITH_TOKENS, encrypted=["dgx-spark:hfToken", "dgx-spark:gatewayKeys"])
    assert made.hf_token.get_secret_value() == "hf_private"


def test_an_unknown_engine_is_refused_with_the_choice():
    assert "dgx-spark:engine: input should be 'vllm', 'sglang' or 'trtllm' (it is 'llama.cpp')" in refusal(
        engine="llama.cpp"
    )


def test_other_projects_keys_are_none_of_ours():
    raw = {"dgx-spark:engine": "vllm", "aws:region": "x", "dgx-spark:model": "m"}
    nodes = json.dumps([{"name": "a", "host": "h"}])
    keys = json.dumps({"hostKeys": {"a": KEY}})
    assert load({**raw, "dgx-spark:nodes": nodes, "dgx-spark:ssh": keys}).model == "m"


@given(st.dictionaries(st.sampled_from(["nodes", "ssh", "serving", "weights", "ray", "x"]), st.text(max_size=20)))
def test_any_text_is_refused_and_never_crashes(raw):
    # Without engine and model nothing can be complete.
    with pytest.raises(Refused) as caught:
        load({f"dgx-spark:{key}": value for key, value in raw.items()})
    assert {"dgx-spark:engine", "dgx-spark:model"} <= {problem.at for problem in caught.value.problems}


def test_numbers_set_by_path_are_good_as_text():
    assert settings(serving={"env": {"OMP_NUM_THREADS": 4}, "servedModelName": 7}).serving.env == {
        "OMP_NUM_THREADS": "4"
    }


def test_the_key_is_a_file_or_the_agents():
    assert settings().ssh.key_file == "~/.ssh/id_ed25519"
    assert settings(ssh={"hostKeys": {"spark-1": KEY, "spark-2": KEY}, "privateKeyFile": "agent"}).ssh.key_file is None
