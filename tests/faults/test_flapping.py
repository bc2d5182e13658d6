"""The fabric goes down and comes up again while weights are copied."""

from __future__ import annotations

import threading

from simulator import network
from tests.faults.power import slow_fabric, to_come_anew, wait_for_weights
from tests.faults.trial import fault
from tests.faults.under_way import UnderWay, pulumi

DEVICE = "enp1s0f1np1"


@fault("fabric flapping during the copy of weights", trials=3)
def test_flapping(pair, trial):
    trial.among(pair.nodes)
    to_come_anew(pair)
    head, worker = pair.nodes
    flapping = pair.nodes[trial.number % 2]
    with slow_fabric(head, 30):
        run = UnderWay(pair, pulumi(pair, "up"))
        wait_for_weights(worker, 0.05)
        for _ in range(4):
            network.ip("link", "set", DEVICE, "down", namespace=flapping.name)
            threading.Event().wait(trial.chance.uniform(0.2, 4))
            network.ip("link", "set", DEVICE, "up", namespace=flapping.name)
            threading.Event().wait(trial.chance.uniform(0.2, 2))
        run.rest()
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)


@fault("fabric gone for good during the copy of weights: `up` ends, and says so", trials=2)
def test_gone(pair, trial):
    trial.among(pair.nodes)
    to_come_anew(pair)
    head, worker = pair.nodes
    lost = pair.nodes[trial.number]
    with slow_fabric(head, 30):
        run = UnderWay(pair, pulumi(pair, "up"))
        wait_for_weights(worker, 0.1)
        try:
            network.cable(lost, port=None)
            done = run.rest()
        finally:
            network.cable(lost, port=1)
    assert done.code != 0, done.text
    assert "the copy failed" in done.text, done.text
    trial.ends_right(pair, pair.up)
    trial.ends_gone(pair)
