"""The catalog is well-formed, and names lead to one model each."""

from components import catalog


def test_names_and_repositories_are_unique():
    known = [word for entry in catalog.entries() for word in (entry.id, entry.name)]
    assert len(known) == len(set(known))


def test_a_model_is_found_by_name_and_by_repository():
    assert catalog.find("gpt-oss-120b") == catalog.find("openai/gpt-oss-120b")
    assert catalog.find("nobody/nothing") is None
