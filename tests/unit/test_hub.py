"""What the model hub is asked and what becomes of its refusals, against the simulator's hub on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, strategies

from components.facts.hub import File, loaded, selected, unusable, weights
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
    # A test that fails must not be waited for.
    thread = threading.Thread(target=server.serve_forever, daemon=True)
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


def test_a_pull_request_is_a_revision_too(endpoint):
    asked = look_up(endpoint, "openai/gpt-oss-120b", hub.PULL_REQUEST, "")
    assert asked == look_up(endpoint, "openai/gpt-oss-120b", None, "")


def test_what_the_weights_take_in_memory_is_known_from_the_tensors_types(endpoint):
    found = look_up(endpoint, "openai/gpt-oss-120b", None, "")
    assert found.loaded == sum(file.size for file in found.files if file.path.endswith(".safetensors"))


def publish(folder, repo, *files, config='{"num_hidden_layers": 1}'):
    for name in files:
        path = folder / repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config if name == "config.json" else "x" * 8)
    about = {"commit": "d" * 40, "gated": False, "announced": {}}
    (folder / repo / ".repository.json").write_text(json.dumps(about))


@pytest.fixture
def mine(tmp_path):
    """(folder, endpoint) of a hub of one's own."""
    handler = type("Bound", (hub.Handler,), {"directory": tmp_path, "wheels": tmp_path})
    for endpoint in serve(handler):
        yield tmp_path, endpoint


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (("README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf"), r"has its weights as GGUF alone (m-Q4_K_M.gguf …)"),
        (
            ("config.json", "adapter_config.json", "adapter_model.safetensors"),
            "is an adapter (LoRA) and no model of its",
        ),
        (("config.json", "README.md"), "has no weights (*.safetensors, *.bin) at all"),
        (
            ("config.json", "BF16/model.safetensors", "FP8/model.safetensors"),
            "has weights in folders alone (BF16, FP8)",
        ),
        (("config.json", "checkpoint-10/model.safetensors"), "has weights in folders alone (checkpoint-10)"),
    ],
)
def test_a_repository_without_weights_that_an_engine_loads_is_refused_saying_which(mine, files, why):
    folder, endpoint = mine
    publish(folder, "a/b", *files)
    problem = refused(endpoint, "a/b", None, "")
    assert problem.at == "model"
    assert f"a/b {why}" in problem.wrong


def test_a_config_that_is_none_is_refused(mine):
    folder, endpoint = mine
    for content in ("[1, 2]", "<html>", "{"):
        publish(folder, "a/b", "config.json", "model.safetensors", config=content)
        assert "the config.json of a/b is no JSON object" in refused(endpoint, "a/b", None, "").wrong


def test_each_weight_is_downloaded_once_and_nothing_of_a_training_run(mine):
    folder, endpoint = mine
    publish(
        folder, "a/b", "config.json", "model-00001-of-00001.safetensors", "pytorch_model.bin", "model.pt", "m.gguf",
        "consolidated.safetensors", "optimizer.pt", "training_args.bin", "checkpoint-10/model.safetensors",
        "checkpoint-10/optimizer.pt", "original/consolidated.00.pth", "metal/model.bin", "deep/onnx/model.onnx",
        "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin", "tokenizer.json",
    )  # fmt: skip
    assert [file.path for file in look_up(endpoint, "a/b", None, "").files] == [
        "1_Pooling/config.json", "2_Dense/model.safetensors", "config.json", "model-00001-of-00001.safetensors",
        "tokenizer.json",
    ]  # fmt: skip


def named(*names):
    return [File(name, 1, None) for name in names]


@pytest.mark.parametrize(
    ("there", "loads"),
    [
        # Pickled weights, where there is nothing else.
        (("pytorch_model.bin", "training_args.bin", "sparse_linear.pt"), ["pytorch_model.bin", "sparse_linear.pt"]),
        (("model.pt", "rng_state.pth"), ["model.pt"]),
        # Mistral's own format, where there is no other.
        (("consolidated.safetensors", "params.json"), ["consolidated.safetensors"]),
        (("consolidated.safetensors", "model.safetensors"), ["model.safetensors"]),
        # What else a repository has in folders is downloaded, and no part of what the engine loads.
        (("model.safetensors", "2_Dense/model.safetensors", "adapter_model.safetensors"), ["model.safetensors"]),
    ],
)
def test_engines_load_the_weights_at_the_root_in_one_format(there, loads):
    assert [file.path for file in weights(named(*there))] == loads


PIECES = ["model", "consolidated", "adapter_model", "optimizer", "checkpoint-1", "original", "2_Dense", "x"]
PATHS = strategies.builds(
    lambda folders, name, kind: "/".join([*folders, f"{name}.{kind}"]),
    strategies.lists(strategies.sampled_from(PIECES), max_size=2),
    strategies.sampled_from(PIECES),
    strategies.sampled_from(["safetensors", "bin", "pt", "gguf", "json", "pth"]),
)


@given(strategies.lists(PATHS, unique=True))
def test_what_is_selected_is_selected_again_and_has_all_that_is_loaded(paths):
    chosen = selected(named(*paths))
    assert selected(chosen) == chosen
    assert weights(chosen) == weights(named(*paths))
    assert set(weights(named(*paths))) <= set(chosen)
    assert bool(unusable(named(*paths))) != bool(weights(named(*paths)))


def test_numbers_in_float32_take_half_in_memory_and_a_count_of_another_thing_counts_nothing():
    def held(size, **parameters):
        return loaded(parameters, [File("model.safetensors", size, None)])

    assert held(400, F32=100) == 200
    assert held(100 * 2 + 100 + 50, BF16=100, F8_E4M3=100, F4=100) == 350
    # Of these the hub counts a part of what is there, or calls a type what is not known here.
    assert held(4000, F32=100) == 0
    assert held(100, F9=100) == 0
    assert held(100) == 0


def test_a_login_page_in_the_hubs_place_is_named(tmp_path):
    class Portal(BaseHTTPRequestHandler):
        page = b"<html>Welcome to the hotel</html>"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.page)))
            self.end_headers()
            self.wfile.write(self.page)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    for portal in serve(Portal):
        problem = refused(portal, "a/b", None, "hf_secret")
        assert problem.at == "weights.endpoint"
        assert "a network's login page" in problem.wrong
        Portal.page = b'{"message": "not this API"}'
        assert "is no model hub" in refused(portal, "a/b", None, "").wrong
        Portal.page = b"[]"
        assert "is no model hub" in refused(portal, "a/b", None, "").wrong


def test_a_name_that_is_no_repositorys_is_told_before_the_hub_is_asked(endpoint):
    assert "a/b/c is no name of a repository" in refused(endpoint, "a/b/c", None, "").wrong


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
