"""`./spark trust`: docs/trust.md, made from a run of the tests that show each property and from the table of ports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.ports import LISTENERS
from ops.pulumi import ROOT, CommandError

FILE = ROOT / "docs" / "trust.md"

HEAD = """# Trust

Made by `./spark trust`, which runs the tests of the table (with `--all` those on simulated Sparks too, which keep their
number otherwise); change the words in ops/trust.py and components/ports.py.

What is shown here is shown by tests, with stand-ins for the engines. What nobody has shown, or is not so, stands at the
end.
"""

LIMITS = """## What is not so

- The fabric is trusted to carry what ranks say: NCCL, Gloo, Ray, torch's rendezvous and, after its proof of the key,
  `inside/together.py` neither encrypt nor sign. Keep others off the cable or the switch.
- torch's rendezvous and Ray's control store listen on every address of the head, as their programs do. Where the
  management network has others on it, let a firewall pass SSH and the ports of the APIs alone from there.
  `serving.executor: mp`, the default, needs no Ray.
- Swarm listens on every address (2377, 7946). Its members know each other by TLS. `serving.launcher: mpi` needs none.
- Words of `serving.extraArgs` are on the engine's command line, which everybody on the Spark can read. Put secrets into
  `serving.env`.
- Values of build arguments are in the history of the image that is built (`docker history`).
- Who is in the group `docker` of a Spark is root there, and reads the keys in the containers.
- Swarm tasks have dropped capabilities, but no `no-new-privileges`: the docker provider can't ask for it.
- No real engine was run with dropped capabilities; `containers.capabilities` adds what one turns out to need.
"""


@dataclass(frozen=True)
class Property:
    """What holds, and the tests that fail where it does not: files, or single tests as FILE::NAME."""

    text: str
    tests: tuple[str, ...]
    simulated: bool = False
    """They need the simulated Sparks: `./spark trust --all` runs them."""


PROPERTIES = (
    Property(
        "No registration of any engine shows a secret outside Pulumi's encryption: inputs, outputs, command lines, "
        "variables, labels, messages. Secrets have every odd character",
        ("tests/program/test_secrets.py",),
    ),
    Property(
        "`docker inspect` shows no secret; an encrypted `serving.env` reaches the processes as it is",
        (
            "tests/program/test_secrets.py::test_docker_inspect_shows_no_secret_but_the_engines_own_words",
            "tests/unit/test_environment.py",
        ),
    ),
    Property(
        "A token that no header can carry is refused, and no error shows it or an encrypted setting",
        (
            "tests/unit/test_settings.py::test_a_token_that_no_header_can_carry_is_refused_and_not_shown",
            "tests/unit/test_settings.py::test_what_is_wrong_with_an_encrypted_setting_is_said_without_showing_it",
            "tests/unit/test_settings.py::test_a_token_that_is_not_encrypted_is_refused_with_the_command_that_encrypts_it",
            "tests/unit/test_hub.py",
        ),
    ),
    Property(
        "Build arguments are in no process's command line",
        (
            "tests/unit/test_images.py::test_what_an_image_is_built_with_shows_in_no_command_line_and_means_nothing_to_docker_itself",
        ),
    ),
    Property(
        "Ranks let in, and obey, only whoever proves to have the server's key; it is in no `docker inspect`",
        (
            "tests/unit/test_together.py::test_rank_0_lets_nobody_in_who_does_not_know_the_key",
            "tests/unit/test_together.py::test_a_rank_obeys_nobody_who_does_not_know_the_key",
            "tests/unit/test_together.py::test_noise_on_rank_0s_port_is_hung_up_on_and_does_no_harm",
            "tests/program/test_registrations.py::"
            "test_ranks_of_several_sparks_have_a_key_in_common_that_docker_inspect_does_not_show",
        ),
    ),
    Property(
        "The key that copies weights runs one command, reads one directory, for one peer: everything else is refused",
        (
            "tests/unit/test_caches.py::test_the_key_copies_from_its_directory_and_does_nothing_else",
            "tests/unit/test_caches.py::test_the_key_for_an_image_saves_that_image_whatever_is_asked",
            "tests/unit/test_caches.py::test_a_key_is_for_its_peer_alone_and_for_nothing_beside_its_command",
        ),
    ),
    Property(
        "Whatever a setting holds gets through shells, ssh, Docker, YAML and JSON as it is, or is refused",
        ("tests/unit/test_quoting.py",),
    ),
    Property(
        "Containers drop all capabilities but those needed, gain none, keep Docker's seccomp filter, mount the Spark's "
        "files read-only, and never Docker's socket",
        ("tests/program/test_confinement.py",),
    ),
    Property(
        "Every port is in the table below, and what can be bound to an address is",
        ("tests/unit/test_ports.py",),
    ),
    Property(
        "A stack that an administrator would refuse is refused by the policy pack: privileged containers, an open API "
        "on a routable address, images that are not pinned, a host key that is not",
        ("tests/unit/test_policy.py",),
    ),
    Property(
        "What is installed is what the locks name, by hash",
        ("tests/install/test_locks.py", "tests/unit/test_sbom.py"),
    ),
    Property(
        "On simulated Sparks: a whole life with every secret, in which no process's arguments, Docker's words, logs, "
        "state or files show one, and after which none is left in any file",
        ("tests/e2e/test_trust.py::test_a_life_with_every_secret_shows_none_of_them",),
        simulated=True,
    ),
    Property(
        "On simulated Sparks: every socket that listens is in the table below, on its address, and from the management "
        "network no more is reached",
        (
            "tests/e2e/test_trust.py::"
            "test_whatever_listens_is_in_the_table_on_its_address_and_no_more_is_reached_from_outside",
        ),
        simulated=True,
    ),
    Property(
        "On simulated Sparks, by their own sshd: the key that copies weights opens no shell, no forwarding and no "
        "file, and from another machine nothing",
        ("tests/e2e/test_trust.py::test_the_key_that_copies_weights_is_of_no_other_use_to_anybody",),
        simulated=True,
    ),
)


OF_THE_PAGE = "tests/unit/test_ports.py::test_the_page_has_the_table_as_it_is_here_and_names_tests_that_are_there"
"""Compares with the page that is about to be written."""


def counted(junit: Path) -> Counter[str]:
    """Test (FILE::NAME, without parameters) → how many passed."""
    found: Counter[str] = Counter()
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        if not any(child.tag in ("failure", "error", "skipped") for child in case):
            file = case.attrib["classname"].replace(".", "/") + ".py"
            found[f"{file}::{case.attrib['name'].partition('[')[0]}"] += 1
    return found


def passed(one: Property, counts: Mapping[str, int]) -> int:
    """How many of its tests have."""
    return sum(
        number for test, number in counts.items() if any(test == t or test.startswith(f"{t}::") for t in one.tests)
    )


def text(counts: Mapping[str, int], former: str = "") -> str:
    """`former`: the page as it was; what was not run keeps its number."""
    rows = [
        f"| {one.text} | {', '.join(_shown(one))} | {passed(one, counts) or _number(one, former)} |"
        for one in PROPERTIES
    ]
    properties = ["| What holds | Tests | Passed |", "|---|---|---|", *rows]
    return "\n".join([HEAD, *properties, "", ports(), LIMITS]).rstrip() + "\n"


def _number(one: Property, page: str) -> str:
    rows = (line for line in page.splitlines() if line.startswith(f"| {one.text} |"))
    return next((line.split("|")[-2].strip() for line in rows), "not run yet")


def _shown(one: Property) -> list[str]:
    files = dict.fromkeys(test.split("::")[0] for test in one.tests)
    return [f"`{file}`" for file in files]


def ports() -> str:
    rows = [
        f"| {one.port} | {one.setting} | {one.who} | {one.where} | {one.address} | {one.guard} |" for one in LISTENERS
    ]
    head = ["## Ports", "", "| TCP | Moved by | Who listens | On | Address | Lets in |", "|---|---|---|---|---|---|"]
    tail = [
        "",
        "Beside them the ranks' own, which the kernel chooses (NCCL, Gloo, the workers of Ray and vLLM), and UDP 4791"
        " (RoCE v2).",
        "",
    ]
    return "\n".join([*head, *rows, *tail])


def write(*, everything: bool) -> Path:
    """Raises CommandError where a test of a property fails. `everything`: also what needs the simulated Sparks."""
    chosen = (one for one in PROPERTIES if everything or not one.simulated)
    wanted = list(dict.fromkeys(test for one in chosen for test in one.tests))
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder, "tests.xml")
        argv = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", f"--deselect={OF_THE_PAGE}", *wanted]
        if subprocess.run(argv, cwd=ROOT, env=dict(os.environ)).returncode:
            raise CommandError("a property does not hold: see above; docs/trust.md is as it was")
        FILE.write_text(text(counted(junit), FILE.read_text() if FILE.exists() else ""))
    return FILE
