"""The catalog is well-formed, names lead to one model each, and the user's own entries win."""

import re
from pathlib import Path

import pytest

from components import catalog
from components.problems import Refused
from tests.unit.build import plan, settings


def test_names_and_repositories_are_unique():
    known = [word for entry in catalog.entries() for word in (entry.id, entry.name)]
    assert len(known) == len(set(known))


def test_every_model_is_there_with_its_sources():
    for entry in catalog.entries():
        assert entry.source, entry.id
        assert entry.weights_gb, entry.id
        assert entry.cache, entry.id
        assert entry.confidence in ("high", "medium", "low"), entry.id
        assert entry.vllm != entry.sglang or entry.trtllm != catalog.Served(), entry.id
        assert entry.download_gb >= entry.weights_gb, entry.id


def test_a_model_is_found_by_name_by_repository_and_by_former_ones():
    assert catalog.find("gpt-oss-120b") == catalog.find("openai/gpt-oss-120b")
    assert catalog.find("nobody/nothing") is None
    moved = next(entry for entry in catalog.entries() if entry.former)
    assert catalog.find(moved.former[0]) == moved


def test_sizes_are_what_engines_load_and_not_what_tables_print():
    """Facts H38: about 2 bytes per parameter in BF16."""
    for entry in catalog.entries():
        if entry.quantization == "BF16" and entry.parameters:
            assert entry.weights_gb == pytest.approx(2 * entry.parameters.total, rel=0.03), entry.id


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.yaml"

    def write(text):
        file.write_text(text)
        return str(file)

    return write


def test_the_users_entries_come_beside_ours_and_win(own):
    file = own(
        "models:\n- {id: me/mine, name: mine}\n- {id: openai/gpt-oss-120b, name: big, vllm: {max_model_len: 7}}\n"
    )
    assert catalog.find("mine", file).id == "me/mine"
    made = plan(settings(1, model="big", catalog=file))
    assert "--max-model-len=7" in made.ranks[0].command
    assert len(catalog.entries(file)) == len(catalog.entries()) + 1


def test_a_fine_tune_takes_over_all_that_it_does_not_say_from_its_base(own):
    file = own(
        "models:\n"
        "- {id: me/tuned, name: tuned, base: qwen3.6-35b-a3b-nvfp4, weights_gb: 24, vllm: {max_model_len: 7}}\n"
        "- {id: me/twice, name: twice, base: tuned, vllm: {draft: null}}\n"
    )
    base, tuned, twice = (catalog.find(name, file) for name in ("qwen3.6-35b-a3b-nvfp4", "tuned", "twice"))
    assert (tuned.id, tuned.weights_gb, tuned.cache) == ("me/tuned", 24, base.cache)
    assert tuned.vllm == base.vllm.model_copy(update={"max_model_len": 7})
    assert twice.vllm == tuned.vllm.model_copy(update={"draft": None})
    assert catalog.find("nvidia/Qwen3.6-35B-A3B-NVFP4", file) == base


def test_a_base_that_is_not_there_or_its_own_is_refused(own):
    file = own("models:\n- {id: a/a, name: a, base: b}\n- {id: b/b, name: b, base: a}\n- {id: c/c, name: c, base: d}\n")
    with pytest.raises(Refused) as caught:
        catalog.entries(file)
    text = str(caught.value)
    assert "models[0].base: b is its own base" in text
    assert "models[2].base: there is no entry d" in text


def test_an_entry_in_place_of_ours_may_have_ours_as_its_base(own):
    file = own(
        "models:\n- {id: openai/gpt-oss-120b, name: gpt-oss-120b, base: gpt-oss-120b, vllm: {max_model_len: 7}}\n"
    )
    assert catalog.find("gpt-oss-120b", file).vllm.max_model_len == 7
    assert catalog.find("gpt-oss-120b", file).cache == catalog.find("gpt-oss-120b").cache


def test_all_mistakes_in_the_users_file_are_said_at_once(own):
    file = own("models:\n- {id: me/mine}\n- {id: a/b, name: c, quantisation: x}\n")
    with pytest.raises(Refused) as caught:
        catalog.entries(file)
    text = str(caught.value)
    assert "models[0].name: field required" in text
    assert "models[1].quantisation: extra inputs are not permitted" in text


@pytest.mark.parametrize("text", ["a: [", "other: 1", "- 1"])
def test_a_file_that_is_no_catalog_is_refused(own, text):
    with pytest.raises(Refused, match="is no YAML with a list"):
        catalog.entries(own(text))


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(Refused, match=r"catalog: /nowhere/x\.yaml: No such file"):
        catalog.entries("/nowhere/x.yaml")


def test_a_model_that_needs_another_image_gets_it(own):
    file = own("models:\n- {id: me/mine, name: mine, vllm: {image: special}}\n")
    assert plan(settings(1, model="mine", catalog=file)).image.name == "special"
    assert plan(settings(1, model="mine", catalog=file, image={"name": "other"})).image.name == "other"


STANDINS = Path(__file__).parent.parent.parent / "simulator" / "standins"


def options_of(engine):
    """What the engine's own help names (flags.txt of the stand-ins, read from the packages)."""
    text = (STANDINS / engine / "flags.txt").read_text()
    return {word.rstrip(",") for word in re.split(r"[\s|]+", text) if word.startswith("--")}, text


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_every_option_for_an_engines_own_image_is_one_that_it_has(engine):
    known, text = options_of(engine)
    assert len(known) > 20
    for entry in catalog.entries():
        served = entry.served(engine)
        if served.image:
            continue
        for word in served.args:
            assert not word.startswith("--") or word.partition("=")[0] in known, (entry.name, word)
        if engine == "vllm" and served.tool_call_parser:
            assert re.search(rf"--tool-call-parser \{{[^}}]*\b{served.tool_call_parser}\b", text), entry.name


def test_options_that_belong_to_settings_of_their_own_are_not_among_the_arguments():
    """Else the estimate would not see them, or they would be given twice."""
    own = {"--gpu-memory-utilization", "--tensor-parallel-size", "--speculative-config", "--port", "--reasoning-parser"}
    for entry in catalog.entries():
        for engine in ("vllm", "sglang", "trtllm"):
            assert not own & {word.partition("=")[0] for word in entry.served(engine).args}, entry.name
