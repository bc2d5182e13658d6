"""The state is yesterday's, or lost."""

from __future__ import annotations

from pathlib import Path

from simulator import sparks
from tests.e2e.conftest import Stack
from tests.e2e.steps import step
from tests.e2e.test_converges import lose_state
from tests.faults.trial import fault


def state_of(stack: Stack) -> Path:
    (path,) = (stack.folder / "state/.pulumi/stacks").rglob(f"{stack.name}.json")
    return path


THEN = {"maxModelLen": 4096}


@fault("the state of yesterday restored, with today's settings and with those of then", trials=3)
def test_of_yesterday(alone, third, trial):
    trial.among([third])
    server = alone.container("server")
    alone.configure(serving=THEN)
    alone.up()
    yesterday = state_of(alone).read_text()
    alone.configure(serving=THEN, monitoring=True)
    alone.up()
    state_of(alone).write_text(yesterday)
    shown = alone("preview", "--stack", alone.name).text
    # Its server is today's, too.
    assert "dgx-spark-alone-grafana" in shown
    assert f"{server}," not in shown
    trial.ends_right(alone, alone.up)

    step("with the settings of then, too: what is wanted no more goes")
    state_of(alone).write_text(yesterday)
    alone.configure(serving=THEN, monitoring=False)
    # What was measured is nobody's to throw away but the user's.
    trial.ends_right(alone, alone.up, but=f"volume {alone.container('prometheus')}, stays with what is in it")
    assert "grafana" not in sparks.on(third, "docker ps -a --format '{{.Names}}'")
    trial.ends_gone(alone)


@fault("the state of a pair lost while it serves", trials=3)
def test_lost(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    lose_state(pair)
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)
