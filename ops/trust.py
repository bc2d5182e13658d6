"""`./spark trust`: docs/trust.md, made from a run of the tests that show each property, from what was counted of faults
and from the table of ports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.ports import LISTENERS
from ops import faults
from ops.pulumi import ROOT, CommandError

FILE = ROOT / "docs" / "trust.md"

HEAD = """# Trust

Made by `./spark trust`, which runs the tests of the first table (with `--all` those on simulated Sparks and all faults
too, which keep their numbers otherwise; `--properties WORD` those of the rows that have a test with this word in its
name); change the words in ops/trust.py, ops/faults.py and components/ports.py.

What is shown here is shown by tests, with stand-ins for the engines. What nobody has shown, or is not so, stands at the
end.
"""

LIMITS = """## What is not so

- The fabric is trusted to carry what ranks say: NCCL, Gloo, Ray, torch's rendezvous and, after its proof of the key,
  `inside/together.py` neither encrypt nor sign. Keep others off the cable or the switch.
- torch's rendezvous, Ray, Swarm (2377, 7946), Open MPI and some ports that the kernel chooses
  listen on every address, as their programs do. Where others are on the management network, `./spark setup-guard`
  closes them to it (see Ports). It is a command of its own, since it needs root, and without it they are open;
  `./spark doctor` says which. It looks at networks and not at machines: whoever is on the fabric is let in.
  `serving.executor: mp`, the default, needs no Ray, `serving.launcher: mpi` no Swarm.
- Words of `serving.extraArgs` are on the engine's command line, which everybody on the Spark can read. Put secrets into
  `serving.env`.
- Values of build arguments are in the history of the image that is built (`docker history`).
- Who is in the group `docker` of a Spark is root there, and reads the keys in the containers.
- Engines are root in their containers, as their images have it (caches, compilers and MPI's sshd are root's there),
  with the few capabilities that are left; what runs beside them is whom its own image names.
- Swarm tasks have dropped capabilities, but no `no-new-privileges`: the docker provider can't ask for it.
- What an engine compiled is run by its next container of the same model and image: who has got into one can leave
  something there. `./spark prune` takes it away when the stack is down; `serving.compileCache: false` keeps nothing.
- No real engine was run with dropped capabilities; `containers.capabilities` adds what one turns out to need.
- A Spark whose clock is hours off was not brought about: simulated Sparks share this machine's clock. What holds is
  that no program of ours there decides by the time of day (`tests/unit/test_clock.py`); TLS, to the hub and within a
  Swarm, does.
- Where Docker hangs while Pulumi's docker provider asks it, as at the look that begins every `up` of a stack that is
  there, no script of ours is there to say so: the hermetic engine ends after 10 minutes, and how the real provider ends
  was not seen.
- trtllm-serve is not asked while it serves (`serving.stuckAfter`); that it finds out by itself was read and not seen.
- A process that not even SIGKILL ends (a GPU's driver that hangs) was played by a rank that does not answer.
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
        "`./spark setup-guard` closes to all networks but the fabric what the Sparks say among themselves, knows no "
        "other ports, and is loaded at every boot until `--undo`",
        ("tests/unit/test_guard.py",),
    ),
    Property(
        "A stack that an administrator would refuse is refused by the policy pack: privileged containers, an open API "
        "on a routable address, a host key that is not pinned; an image without a digest is pointed out",
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
        "On simulated Sparks with `./spark setup-guard`: a machine on the management network reaches SSH and what is "
        "for others alone, after a reboot too, and the endpoint serves on",
        ("tests/e2e/test_trust.py::test_with_the_guard_another_machine_reaches_ssh_and_what_is_for_others_alone",),
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
    return "\n".join([HEAD, *properties, "", faults.table(), ports(), LIMITS]).rstrip() + "\n"


def _number(one: Property, page: str) -> str:
    rows = (line for line in page.splitlines() if line.startswith(f"| {one.text} |"))
    return next((line.split("|")[-2].strip() for line in rows), "not run yet")


def _shown(one: Property) -> list[str]:
    files = dict.fromkeys(test.split("::")[0] for test in one.tests)
    return [f"`{file}`" for file in files]


def ports() -> str:
    rows = [
        f"| {one.port}{f' to {one.last}' if one.count > 1 else ''} | {one.setting} | {one.who} | {one.where} | "
        f"{one.address} | {one.guard} | {'fabric' if one.inside else ''} |"
        for one in LISTENERS
    ]
    titles = "| TCP | Moved by | Who listens | On | Address | Lets in | With `setup-guard` from |"
    head = ["## Ports", "", titles, "|---|---|---|---|---|---|---|"]
    tail = [
        "",
        "Beside them the ranks' own, which the kernel chooses (NCCL, Gloo, vLLM's workers), which"
        " `./spark setup-guard` closes with those above, and UDP 4791 (RoCE v2), which the fabric's adapter alone"
        " takes.",
        "",
    ]
    return "\n".join([*head, *rows, *tail])


def write(*, everything: bool) -> Path:
    """Raises CommandError where a test of a property fails, or a fault did not end right. `everything`: also what needs
    the simulated Sparks."""
    _write([one for one in PROPERTIES if everything or not one.simulated])
    return write_faults("") if everything else FILE


def write_properties(words: str) -> Path:
    """Run all tests of each property that has one with `words` in its name, also on simulated Sparks. Raises
    CommandError where one fails, or none has such a name."""
    chosen = [one for one in PROPERTIES if any(words in test for test in one.tests)]
    if not chosen:
        raise CommandError(f"no test of a property has {words} in its name")
    return _write(chosen)


def _write(chosen: Sequence[Property]) -> Path:
    wanted = list(dict.fromkeys(test for one in chosen for test in one.tests))
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder, "tests.xml")
        argv = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", f"--deselect={OF_THE_PAGE}", *wanted]
        if subprocess.run(argv, cwd=ROOT, env=dict(os.environ)).returncode:
            raise CommandError("a property does not hold: see above; docs/trust.md is as it was")
        return renew(counted(junit))


def write_faults(words: str) -> Path:
    """Bring about the faults whose tests' names match `words` ('': all). Raises CommandError where one did not end
    right, which the page says, too."""
    code = faults.run(words)
    renew()
    if code:
        raise CommandError("a fault did not end right, or none has such a name: see above")
    return FILE


def renew(counts: Mapping[str, int] | None = None) -> Path:
    """Write the page anew; what is not among `counts` keeps its number."""
    FILE.write_text(text(counts or {}, FILE.read_text() if FILE.exists() else ""))
    return FILE
