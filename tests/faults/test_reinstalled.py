"""A Spark is reinstalled and comes back under its old name and address: another host key, and nothing on it."""

from __future__ import annotations

from components.settings import Ssh
from ops import doctor, setup
from ops.project import Project
from ops.stack import of
from simulator import sparks
from simulator.layout import KEY, USER
from tests.e2e.conftest import left_behind
from tests.e2e.steps import step
from tests.e2e.test_converges import lose_state
from tests.faults.trial import fault

LOGIN = Ssh(user=USER, privateKeyFile=str(KEY))


def fingerprint(spark):
    return sparks.inside(spark, "ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").split()[1]


def doctor_says(stack):
    findings, _ = doctor.examine(of(Project(stack.folder, stack.environment), stack.name))
    return [one.detail for one in findings]


@fault("machine reinstalled under its old name: head, and worker with `image.source: copy`", trials=2)
def test_reinstalled(pair, trial, tmp_path):
    lost = pair.nodes[trial.number]
    copied = {"image": {"source": "copy"}} if trial.number == 1 else {}
    trial.among([spark for spark in pair.nodes if spark is not lost])
    pair.configure(serving={"executor": "mp"}, **copied)
    pair.up()
    former = fingerprint(lost)
    stale = (pair.folder / f"Pulumi.{pair.name}.yaml").read_text()
    sparks.wipe(lost, images=not copied)
    fresh = left_behind(lost)
    try:
        step("refused, with both fingerprints")
        assert fingerprint(lost) != former
        # What looks at the containers beforehand is the docker provider's ssh, which knows of the pinned one its line.
        assert fingerprint(lost) in pair.refusal()
        said = "\n".join(doctor_says(pair))
        assert f"pinned is {former}, and it shows {fingerprint(lost)}" in said, said
        step("docs/operations.md: ./spark setup-ssh, the new host key into ssh.hostKeys, a fresh state, pulumi up")
        setup.setup_ssh(setup.at([lost.address], LOGIN), LOGIN, lambda _: True, known_hosts=str(tmp_path / "known"))
        pair.configure(serving={"executor": "mp"}, **copied)
        assert (pair.folder / f"Pulumi.{pair.name}.yaml").read_text() != stale
        # `pulumi stack rm --force --preserve-config` and `pulumi stack init`.
        lose_state(pair)
        trial.ends_right(pair, pair.up)
        trial.ends_gone(pair)
        assert left_behind(lost) == fresh
    finally:
        if copied:
            sparks.restore_images(lost)
