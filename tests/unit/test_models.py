"""`./spark models`: the catalog, and what of it fits."""

import json

import pytest

from components import catalog
from ops import models
from ops.pulumi import CommandError


@pytest.fixture
def found():
    return {row["name"]: row for row in models.rows(models.hardware(None, 2, "vllm"))}


def test_what_fits_one_spark_and_what_two(found):
    assert found["gpt-oss-120b"]["fits"]["1"]["fits"]
    assert not found["llama-3.3-70b"]["fits"]["1"]["fits"]
    assert found["llama-3.3-70b"]["fits"]["2"]["fits"]
    assert not found["minimax-m2.5"]["fits"]["2"]["fits"]
    assert found["minimax-m2.5"]["fits"]["2"]["longest_context"] == 0


def test_a_stack_says_how_many_sparks_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "ROOT", tmp_path)
    (tmp_path / "Pulumi.four.yaml").write_text(
        "config: {dgx-spark:nodes: [{}, {}, {}, {}], dgx-spark:engine: sglang, dgx-spark:catalog: mine.yaml}"
    )
    assert models.hardware("four", None, None) == models.Hardware(4, "sglang", "mine.yaml")
    assert models.hardware("four", 2, "vllm").sparks == 2
    with pytest.raises(CommandError, match=r"there is no Pulumi\.five\.yaml"):
        models.hardware("five", None, None)


def test_programs_get_json_and_people_a_table(capsys):
    where = models.hardware(None, None, None)
    models.show(where, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == len(catalog.entries())
    models.show(where, as_json=False)
    text = capsys.readouterr().out
    assert "pulumi config set model" in text
    assert "57.5 tok/s" in text.replace("\n", " ")


def test_a_broken_catalog_is_one_clear_error():
    with pytest.raises(CommandError, match="catalog"):
        models.rows(models.Hardware(1, "vllm", "/nowhere/x.yaml"))
