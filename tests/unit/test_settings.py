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


@pytest.mark.parametrize(
    ("key", "kind"), [("serving", "an object"), ("takeover", "true or false"), ("nodes", "a list")]
)
def test_a_key_that_is_no_json_is_named_with_what_it_should_be(key, kind):
    assert f"dgx-spark:{key}: is 'fast', not {kind}\n" in refusal(**{key: "fast"})


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


@pytest.mark.parametrize("token", ["hf_private\n", "“hf_private”", "hf_private sk", "hf_pri\u00a0vate", "\thf_private"])
@pytest.mark.parametrize("place", [("hfToken",), ("apiKey",), ("gatewayKeys", "alice")])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(place, token):
    key, *name = place
    text = refusal(**{key: {name[0]: token} if name else token})
    assert f"dgx-spark:{'.'.join(place)}: holds what no header can carry" in text
    assert "hf_pri" not in text


def test_a_token_of_any_visible_character_is_taken_as_it_is():
    odd = "".join(map(chr, range(0x21, 0x7F)))
    assert settings(apiKey=odd).api_key.get_secret_value() == odd


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("serving", '"sk-private"'),
        ("serving", "sk-private"),
        ("serving", '{"env": {"TOKEN": ["sk-private"]}}'),
        ("serving", '{"port": "sk-private"}'),
        ("image", '{"buildArgs": {"TOKEN": ["sk-private"]}}'),
    ],
)
def test_what_is_wrong_with_an_encrypted_setting_is_said_without_showing_it(key, value):
    with pytest.raises(Refused) as caught:
        load({**WITH_TOKENS, f"dgx-spark:{key}": value}, encrypted=[f"dgx-spark:{key}"])
    assert f"dgx-spark:{key}" in str(caught.value)
    assert "sk-private" not in str(caught.value)


@pytest.mark.parametrize("name", ["--help", "a b", "$(id)", "a\nb", "", "“x”", "-v/:/host"])
def test_an_image_that_docker_would_take_for_an_option_or_for_several_words_is_refused(name):
    words = "must be an image's name"
    assert f"image.name: {words}" in refusal(image={"name": name})
    assert f"beside.images.grafana: {words}" in refusal(beside={"images": {"grafana": name}})


def test_images_are_named_with_registry_tag_and_digest():
    name = f"registry.lan:5000/team/vllm_spark:v0.33.0-cu130@sha256:{'1' * 64}"
    assert settings(image={"name": name}).image.name == name


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


@pytest.mark.parametrize(("key", "value"), [("dashboardPort", 8266), ("dashboardHost", "0.0.0.0")])
def test_where_rays_dashboard_is_to_listen_is_refused_where_there_is_none(key, value):
    assert f"{key} is of Ray's dashboard, which is off unless `dashboard: true`" in refusal(ray={key: value})
    assert settings(ray={key: value, "dashboard": True}).ray.dashboard


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


def ssh(**more):
    return {"hostKeys": {"spark-1": KEY, "spark-2": KEY}, **more}


def test_the_key_is_a_file_or_the_agents():
    assert settings().login("spark-1").key_file == "~/.ssh/id_ed25519"
    assert settings(ssh=ssh(privateKeyFile="agent")).login("spark-1").key_file is None


@pytest.mark.parametrize("user", ["", " ", "CORP\\nvidia", "two words", "-o", "a@b", "$USER"])
def test_an_account_that_can_not_be_is_refused_where_it_stands(user):
    text = refusal(ssh=ssh(user=user))
    assert "dgx-spark:ssh.user: must be an account's name: letters, digits, dots, hyphens and under" in text
    assert f"(it is {user!r})" in text


@pytest.mark.parametrize(
    "path", ["", " ", "hf-cache", "./hf", "${HOME}/hf", "/my models", "'/hf'", "/a:b", "/a;b", "~/a\nb"]
)
def test_a_cache_that_is_no_whole_path_is_refused(path):
    assert "dgx-spark:weights.cache: must be a path that begins with / or ~/" in refusal(weights={"cache": path})
    nodes = [{"name": "spark-1", "host": "a", "cache": path}]
    key = {"hostKeys": {"spark-1": KEY}}
    assert "dgx-spark:nodes[0].cache: must be a path" in refusal(nodes=nodes, ssh=key)


@pytest.mark.parametrize("path", ["~", "~/hf", "~nvidia/hf", "/data/hf.cache-2", "/", "/größe"])
def test_a_whole_path_is_taken(path):
    assert settings(weights={"cache": path}).weights.cache == path


LONG = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2"


@pytest.mark.parametrize(
    "pasted",
    [
        LONG,
        f"192.168.1.11 {LONG}",
        f"[192.168.1.11]:2222 {LONG}\n",
        f"{LONG} root@spark-1",
        f"# 192.168.1.11:22 SSH-2.0-OpenSSH_9.6\n192.168.1.11 {LONG}\n",
        f"@cert-authority *.lan {LONG} comment",
        LONG.replace(" ", "   "),
    ],
)
def test_a_host_key_is_taken_as_it_was_pasted(pasted):
    assert settings(ssh={"hostKeys": {"spark-1": pasted, "spark-2": KEY}}).ssh.host_keys["spark-1"] == LONG


@pytest.mark.parametrize("pasted", ["", "SHA256:abc", "ssh-ed25519", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ", 7])
def test_what_is_no_host_key_is_refused(pasted):
    text = refusal(ssh={"hostKeys": {"spark-1": pasted, "spark-2": KEY}})
    assert "ssh.hostKeys.spark-1: must be an ed25519 (or ecdsa) host key" in text


def test_switches_in_the_environment_are_text():
    env = settings(serving={"env": {"A": True, "B": False, "C": 1, "D": "x"}}).serving.env
    assert env == {"A": "true", "B": "false", "C": "1", "D": "x"}
    assert settings(image={"buildArgs": {"A": True}}).image.build_args == {"A": "true"}


@pytest.mark.parametrize(
    ("first", "second"),
    [("Spark.local", "spark.local."), ("fd77::1", "fd77:0::1"), ("[fd77::1]", "fd77::1")],
)
def test_one_host_written_in_two_ways_is_refused(first, second):
    nodes = [{"name": "a", "host": first}, {"name": "b", "host": second}]
    assert "is used as host of more than one node" in refusal(nodes=nodes, ssh={"hostKeys": {"a": KEY, "b": KEY}})


def test_two_ports_of_one_host_are_two_sparks():
    nodes = [{"name": "a", "host": "gate", "port": 2201}, {"name": "b", "host": "gate", "port": 2202}]
    made = settings(nodes=nodes, ssh={"hostKeys": {"a": KEY, "b": KEY}})
    assert [made.login(name).port for name in ("a", "b")] == [2201, 2202]


def test_the_command_for_a_missing_key_knows_the_port():
    text = refusal(ssh={"hostKeys": {"spark-1": KEY}, "port": 2222})
    assert "ssh-keyscan -t ed25519 -p 2222 10.0.0.2" in text
