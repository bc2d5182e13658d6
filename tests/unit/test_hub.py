"""What the model hub is asked and what becomes of its refusals, against the simulator's hub on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.problems import Refused
from components.remote.hub import look_up
from simulator import hub


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    hub.publish(folder)
    handler = type("Bound", (hub.Handler,), {"directory": folder, "wheels": folder})
    yield from serve(handler)


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def refused(*asked):
    with pytest.raises(Refused) as caught:
        look_up(*asked)
    (problem,) = caught.value.problems
    return problem


def test_a_model_is_one_commit_with_its_geometry_and_without_second_copies(endpoint):
    found = look_up(endpoint, "openai/gpt-oss-120b", None, "")
    assert len(found.commit) == 40
    assert found.config["num_attention_heads"] == 64
    assert found.size > 0
    names = [file.path for file in found.files]
    assert "config.json" in names
    assert not any(name.startswith(("original/", "metal/")) for name in names)
    assert all((file.sha256 is not None) == file.path.endswith(".safetensors") for file in found.files)
    assert look_up(endpoint, "openai/gpt-oss-120b", found.commit, "") == found


def test_each_refusal_names_its_setting_and_what_to_do(endpoint):
    assert refused(endpoint, "no/such-model", None, "").at == "model"
    assert refused(endpoint, "openai/gpt-oss-120b", "v9", "").at == "weights.revision"


def test_a_gated_model_is_told_apart_from_a_token_without_access(endpoint):
    gated = "meta-llama/Llama-3.3-70B-Instruct"
    assert "no token is set" in refused(endpoint, gated, None, "").wrong
    assert "has no access" in refused(endpoint, gated, None, "hf_of_somebody").wrong
    assert look_up(endpoint, gated, None, hub.TOKEN).repo == gated


def test_a_hub_that_is_down_or_broken_is_named_without_a_word_of_the_token(endpoint):
    class Broken(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_):
            pass

    assert "ConnectError" in refused("http://127.0.0.1:9", "a/b", None, "hf_secret").wrong
    for broken in serve(Broken):
        problem = refused(broken, "a/b", None, "hf_secret")
        assert "it answers 503" in problem.wrong
        assert "hf_secret" not in str(problem)
