"""What of a container the docker provider takes for a change."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.providers import Old
from simulator.engine.providers.docker_types import Container

MOUNTS = [
    {"containerPath": "/root/.cache/huggingface", "hostPath": "/home/nvidia/.cache/huggingface", "readOnly": True},
    {"containerPath": "/root/.cache", "volumeName": "compiled", "readOnly": False},
]


def changed(old, new):
    return Container().diff(Old("id", old, {"mustRun": True}), new).changed


@st.composite
def shuffled(draw):
    mounts = draw(st.permutations(MOUNTS))
    return [dict(draw(st.permutations(list(mount.items())))) for mount in mounts]


@given(shuffled(), shuffled())
def test_what_is_a_set_to_docker_is_the_same_in_any_order(before, after):
    assert changed({"volumes": before}, {"volumes": after}) == set()


def test_another_member_of_a_set_and_another_order_of_words_are_changes():
    moved = [{**MOUNTS[0], "readOnly": False}, MOUNTS[1]]
    assert changed({"volumes": MOUNTS}, {"volumes": moved}) == {"volumes"}
    assert changed({"command": ["a", "b"]}, {"command": ["b", "a"]}) == {"command"}
