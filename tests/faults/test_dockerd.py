"""Docker's daemon is restarted, or hangs."""

from __future__ import annotations

from ops import doctor
from ops.project import Project
from ops.stack import of
from tests.e2e.conftest import restart_docker
from tests.e2e.steps import step
from tests.faults.dockerd import hanging
from tests.faults.trial import fault
from tests.faults.under_way import UnderWay, pulumi

SILENT = "Docker does not answer"


@fault("dockerd restarted at a random moment of `up`", trials=3)
def test_restarted_during_up(pair, trial):
    trial.among(pair.nodes)
    run = UnderWay(pair, pulumi(pair, "up"))
    assert run.has_said(trial.chance.randrange(5, 42)), run.text
    restart_docker(trial.chance.choice(pair.nodes))
    run.rest()
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("dockerd restarted while the model serves: head, worker", trials=2)
def test_restarted_while_it_serves(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    restart_docker(pair.nodes[trial.number])
    trial.ends_right(pair)
    trial.ends_gone(pair)


@fault("dockerd hangs before the first `up`: refused by name", trials=1)
def test_hangs_before(pair, trial):
    trial.among(pair.nodes)
    silent = pair.nodes[trial.number]
    with hanging(silent):
        said = pair.up(check=False)
    assert said.code != 0
    assert f"{silent.name}: {SILENT}" in said.text
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


MOMENTS = (
    ("cluster-weights-spark-2 created", 1),
    ("cluster-image-spark-2 created", 1),
    ("cluster-room-spark-1 created", 0),
)
"""(what has just been said, whose Docker hangs then): what comes next are scripts of ours. What the docker provider has
asked already ends by a time limit of its own."""


@fault("dockerd hangs in the middle of `up`: it ends, and says so", trials=3)
def test_hangs_during_up(pair, trial):
    trial.among(pair.nodes)
    run = UnderWay(pair, pulumi(pair, "up"))
    moment, which = MOMENTS[trial.number]
    run.says(moment)
    with hanging(pair.nodes[which]):
        step("up ends")
        done = run.rest()
    assert done.code != 0, done.text
    assert SILENT in done.text, done.text
    assert "Traceback" not in done.text, done.text
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("dockerd hangs while the model serves: it goes on serving, and `./spark doctor` names it", trials=1)
def test_hangs_while_it_serves(pair, trial):
    trial.among(pair.nodes)
    pair.up()
    outputs = pair.outputs()
    where = of(Project(pair.folder, pair.environment), pair.name)
    silent = pair.nodes[trial.number]
    with hanging(silent):
        assert pair.answers(outputs)
        findings, _ = doctor.examine(where)
        assert [one for one in findings if one.spark == silent.name and SILENT in one.detail], findings
    trial.ends_right(pair)
    trial.ends_gone(pair)
