"""What a Spark has and a state does not know: what becomes of it, and that it is said."""

from __future__ import annotations

import pytest

from components.plan.leftovers import State
from components.problems import Refused, Severity
from tests.unit.build import ON_RAY, decided, facts, settings

OURS = {"dgx-spark.stack": "organization/dgx-spark/test"}


def there(role, **changes):
    """A container of this stack, as the probe reports it."""
    labels = {**OURS, "dgx-spark.component": role}
    return {"id": f"id-of-{role}", "name": f"dgx-spark-test-{role}", "running": True, "labels": labels, **changes}


def with_found(*found, known=(), **config):
    """The plan of one Spark on which these containers are. `known`: ids in the state; None: it can't be read."""
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": found}
    state = None if known is None else State(frozenset(known))
    return decided(settings(1, **config), {"spark-1": facts(1, docker=docker)}, state=state)


def said(made):
    return [one for one in made.warnings if "left over" in one.wrong]


def test_a_server_that_the_state_does_not_know_is_made_anew_and_that_is_said():
    (note,) = said(with_found(there("server")))
    assert note.severity is Severity.NOTE
    assert note.at == "spark-1"
    assert note.wrong == (
        "left over from an interrupted run or a lost state: dgx-spark-test-server, will be removed and made anew"
    )


@pytest.mark.parametrize("known", [["id-of-server"], None])
def test_of_what_the_state_knows_and_where_it_cannot_be_read_nothing_is_said(known):
    assert said(with_found(there("server"), known=known)) == []


def test_a_container_of_swarms_is_known_by_its_service():
    assert said(with_found(there("server", service=True))) == []


def test_what_nobody_wants_any_more_goes_with_the_room_for_the_server_even_if_room_was_made_before():
    (before,) = with_found().evictions
    record = {"spec": before.triggers[1], "generation": "earlier", "intact": True}
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": [there("ray-head")]}
    spark = facts(1, docker=docker, records={"room": record})

    def made(known):
        return decided(settings(1), {"spark-1": spark}, state=State(frozenset(known)))

    assert made([]).evictions[0].triggers[1:] == (before.triggers[1], "fresh")
    assert said(made([]))[0].wrong.endswith("dgx-spark-test-ray-head, will be removed")
    # Pulumi itself deletes what its state knows.
    assert made(["id-of-ray-head"]).evictions[0].triggers[2] == "earlier"


def test_what_runs_beside_the_server_and_ray_are_wanted_too():
    again, gone = said(with_found(there("grafana"), there("chat"), monitoring=True))
    assert again.wrong.endswith("dgx-spark-test-grafana, will be removed and made anew")
    assert gone.wrong.endswith("dgx-spark-test-chat, will be removed")
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": [there("ray-head"), there("ray-worker")]}
    pair = {"spark-1": facts(1, docker=docker), "spark-2": facts(2)}
    again, gone = said(decided(settings(2, serving=ON_RAY), pair, state=State(frozenset())))
    assert again.wrong.endswith("dgx-spark-test-ray-head, will be removed and made anew")
    # That of the other Spark.
    assert gone.wrong.endswith("dgx-spark-test-ray-worker, will be removed")


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "somebody else's"), ({"dgx-spark.stack": "other/dgx-spark/test"}, "the stack other/dgx-spark/test's")],
)
def test_a_container_of_others_under_our_name_is_refused_and_named(labels, whose):
    told = f"dgx-spark-test-server, the name of one of this stack's, and it is {whose}"
    with pytest.raises(Refused, match=told):
        with_found(there("server", labels=labels))


def test_of_a_run_that_adopts_it_is_said_that_what_is_as_wanted_stays():
    docker = {"version": "28", "runtimes": ["nvidia"], "containers": [there("server")]}
    made = decided(settings(1), {"spark-1": facts(1, docker=docker)}, state=State(frozenset(), adopting=True))
    (note,) = said(made)
    assert note.wrong.endswith("server, will be taken over if it runs just as it is wanted, else removed and made anew")


def thing(kind, name):
    return {"kind": kind, "id": f"id-of-{name}", "name": f"dgx-spark-test-{name}"}


def with_things(*found, known=(), **config):
    docker = {"version": "28", "runtimes": ["nvidia"], "things": found}
    count = 2 if config.get("engine") == "trtllm" else 1
    sparks = {f"spark-{n}": facts(n, sudo=True, **({"docker": docker} if n == 1 else {})) for n in range(1, count + 1)}
    return decided(settings(count, **config), sparks, state=State(frozenset(), things=frozenset(known)))


SWARMS = [thing("service", "server-spark-1"), thing("config", "together-0123"), thing("secret", "rank-key")]


def test_of_a_swarm_that_nobody_wants_any_more_all_is_named_and_goes_first():
    made = with_things(*SWARMS)
    assert [one.wrong for one in said(made)] == [
        "left over from an interrupted run or a lost state: service dgx-spark-test-server-spark-1, config "
        "dgx-spark-test-together-0123, secret dgx-spark-test-rank-key, will be removed"
    ]
    assert made.strays == {
        "spark-1": (
            ("service", "dgx-spark-test-server-spark-1"),
            ("config", "dgx-spark-test-together-0123"),
            ("secret", "dgx-spark-test-rank-key"),
        )
    }


def test_of_what_the_state_knows_nothing_is_said():
    made = with_things(*SWARMS, known=[one["id"] for one in SWARMS])
    assert (said(made), made.strays) == ([], {})


def test_services_that_are_wanted_are_made_anew_and_another_ones_go():
    made = with_things(*SWARMS, thing("service", "server-spark-9"), engine="trtllm")
    again, gone = said(made)
    assert again.wrong.endswith("will be removed and made anew")
    assert "server-spark-1, config" in again.wrong
    assert gone.wrong.endswith(": service dgx-spark-test-server-spark-9, will be removed")
    assert made.strays == {"spark-1": (("service", "dgx-spark-test-server-spark-9"),)}


def test_a_volume_is_never_removed():
    made = with_things(thing("volume", "prometheus"), thing("volume", "chat"), monitoring=True)
    used, kept = said(made)
    assert used.wrong.endswith("volume dgx-spark-test-prometheus, is used again with what is in it")
    assert kept.wrong.endswith("volume dgx-spark-test-chat, stays with what is in it until ./spark destroy")
    assert made.strays == {}
