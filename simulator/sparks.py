"""Start, stop and reach the simulated Sparks. Every process is ended by the pid it was started with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from simulator import network, rootfs
from simulator.layout import CLAIM, KEY, PASSWORD, ROOT, RUN, USER, Spark, Traits
from simulator.shell import SimulatorError, run

SOURCES = Path(__file__).resolve().parent
START_LIMIT = 60
"""Seconds within which sshd and dockerd of one Spark answer; about 2 are usual."""

PRIORITY = -10
"""Nice value of all that runs on a Spark. Ray's head ends when its own processes come 30 s late
(ray/_private/services.py, get_node_with_retry), which they did behind tests of this machine."""


MEMORY = {"MemTotal": 125514547, "MemFree": 119000000, "MemAvailable": 121000000, "Buffers": 0, "Cached": 3000000,
          "Shmem": 0, "SwapTotal": 0, "SwapFree": 0, "Active": 0, "Inactive": 0, "SReclaimable": 0}  # fmt: skip
"""KiB in /proc/meminfo. Source of the total: /proc/meminfo on GB10, 119.70 GiB."""


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """One at a time brings Sparks up or down on this machine; others wait."""
    folder = os.open(CLAIM.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def claim() -> None:
    """Only one simulation fits on a machine; say where the other one is."""
    if CLAIM.exists() and CLAIM.read_text() != str(ROOT):
        raise SimulatorError(
            f"Sparks are already simulated from {CLAIM.read_text()}: end them with `./spark demo --down` there"
        )
    CLAIM.write_text(str(ROOT))


def prepare(sparks: Sequence[Spark]) -> None:
    """Keys, host names and daemon settings, before anything runs."""
    for spark in sparks:
        (spark.home / "docker").mkdir(parents=True, exist_ok=True)
        (spark.home / "rw").mkdir(exist_ok=True)
        spark.infiniband.mkdir(exist_ok=True)
        host_key = spark.home / "ssh_host_ed25519_key"
        if not host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", spark.name, "-f", str(host_key)])
        (spark.home / "meminfo").write_text("".join(f"{key}: {kib:>15} kB\n" for key, kib in MEMORY.items()))
        _write_settings(spark)
    names = [f"{spark.address} {spark.name}" for spark in sparks]
    (RUN / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
    KEY.parent.mkdir(exist_ok=True)
    if not KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "simulated-user", "-f", str(KEY)])


def _write_settings(spark: Spark) -> None:
    """What spark_init.sh makes of a fresh system."""
    traits = spark.traits
    files = {
        "traits.json": json.dumps(asdict(traits)),
        "daemon.json": json.dumps(_daemon(spark), indent=4) + "\n",
        "docker-flags": "".join(f"{flag}\n" for flag in traits.docker_flags),
        "sshd.conf": _sshd(traits),
        "sudoers": f"{USER} ALL=(ALL) {'' if traits.sudo_asks else 'NOPASSWD:'}ALL\n",
        "settings": _of_init(spark),
    }
    for name, text in files.items():
        (spark.home / name).write_text(text)


def _daemon(spark: Spark) -> dict[str, object]:
    """Docker's daemon.json."""
    runtimes = {
        "sim": {"path": "/usr/local/bin/sim-runc"},
        "nvidia": {"path": "nvidia-container-runtime", "args": []},
    }
    if not spark.traits.nvidia_runtime:
        del runtimes["nvidia"]
    return {
        "default-runtime": "sim",
        # Cgroups outlive a killed namespace; a parent of our own lets `down` tell ours from other daemons'.
        "cgroup-parent": f"/{spark.cgroup}",
        "runtimes": runtimes,
        **({"features": {"containerd-snapshotter": True}} if spark.traits.containerd_images else {}),
        **({"live-restore": True} if spark.traits.live_restore else {}),
    }


def _sshd(traits: Traits) -> str:
    lines = {
        "Port": traits.ssh_port,
        "HostKey": "/etc/ssh/ssh_host_ed25519_key",
        "LogLevel": "VERBOSE",
        "PermitRootLogin": "no",
        "PasswordAuthentication": "yes" if traits.ssh_passwords else "no",
        "UsePAM": "no",
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items())


def _of_init(spark: Spark) -> str:
    """Variables that spark_init.sh reads."""
    traits = spark.traits
    words = {
        "lower": rootfs.with_docker(traits.docker),
        "sources": SOURCES,
        "user": USER,
        "password": PASSWORD,
        "uuid": spark.gpu_uuid,
        "hook": "yes" if traits.nvidia_hook else "",
        "gpus": traits.gpus,
        "nvidia_smi_exit": traits.nvidia_smi_exit,
    }
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in words.items())


def reinstall(spark: Spark) -> None:
    """Boot a Spark that is there with a fresh system as its traits say; its keys and Docker's data stay."""
    power_off(spark)
    _unmount(spark)
    _write_settings(spark)
    power_on(spark)
    wait_until_up(existing())


FORMER_DOCKER = "docker-before"
"""What Docker had before the Spark was wiped."""


def restore_images(spark: Spark) -> None:
    """Of a Spark that was wiped with its images."""
    power_off(spark)
    shutil.rmtree(spark.home / "docker")
    (spark.home / FORMER_DOCKER).rename(spark.home / "docker")
    power_on(spark)
    wait_until_up(existing())


def wipe(spark: Spark, *, images: bool) -> None:
    """Reinstall it from NVIDIA's medium: another host key and machine id, an empty home, an empty Docker; with `images`
    those that a registry would give it, which no simulated Spark can reach."""
    if images:
        on(spark, "docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm", check=False)
    power_off(spark)
    _unmount(spark)
    if not images:
        (spark.home / "docker").rename(spark.home / FORMER_DOCKER)
    for kept in spark.home.glob("ssh_host_*"):
        kept.unlink()
    prepare(existing())
    power_on(spark)
    wait_until_up(existing())


def _unmount(spark: Spark) -> None:
    for mounted in (spark.home / "rw" / "class", spark.home / "rw"):
        if os.path.ismount(mounted):
            run(["umount", "--lazy", str(mounted)])


def host_key(spark: Spark) -> str:
    """The Spark's public host key, `ssh-ed25519 AAAA…`."""
    return " ".join((spark.home / "ssh_host_ed25519_key.pub").read_text().split()[:2])


def power_on(spark: Spark) -> None:
    """Boot one Spark; returns at once. See `wait_until_up`."""
    network.forget(spark)
    scratch = spark.home / "rw"
    if not os.path.ismount(scratch):
        run(["mount", "-t", "tmpfs", "-o", "size=6g,mode=755", f"sim-{spark.name}", str(scratch)])
    # A real Spark has processors of its own. Where this may not be, nice says so in the log and goes on without.
    namespace = ["nice", f"--adjustment={PRIORITY}", "nsenter", f"--net=/run/netns/{spark.name}"]
    own = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child=SIGKILL",
    ]
    init = [str(SOURCES / "spark_init.sh"), spark.name, str(spark.home)]
    with open(spark.home / "init.log", "w") as log:
        process = subprocess.Popen(
            [*namespace, *own, *init], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    (spark.home / "pid").write_text(str(process.pid))
    network.power(spark, on=True)


def power_off(spark: Spark) -> None:
    """A power cut: the links go first, so nobody is told; then the kernel ends everything in its pid namespace."""
    network.power(spark, on=False)
    end(spark.home / "pid", marker=f"spark_init.sh {spark.name}")


def is_on(spark: Spark) -> bool:
    pid_file = spark.home / "pid"
    return pid_file.exists() and _alive(int(pid_file.read_text()))


def end(pid_file: Path, *, marker: str) -> None:
    """End the process whose pid we wrote, if it is still ours (its command line holds `marker`)."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    pid_file.unlink()
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if marker not in command:
            return
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
    _reap(pid)
    wait_for(lambda: not _alive(pid), f"the end of process {pid}", limit=10)


def _reap(pid: int) -> None:
    # Started by an earlier command, it is not our child.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], what: str, *, limit: float = START_LIMIT) -> None:
    """Poll `condition` ten times a second; raise SimulatorError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise SimulatorError(f"waited {limit:.0f} s for {what} in vain")
        time.sleep(0.1)


def ssh_argv(spark: Spark) -> list[str]:
    options = {
        "IdentityFile": str(KEY),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(RUN / "known_hosts"),
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": "5",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", "-F", "none", *words, "-p", str(spark.traits.ssh_port), f"{USER}@{spark.address}"]


def on(spark: Spark, command: str, *, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Run a shell command on the Spark over its real SSH, as its login user."""
    return run([*ssh_argv(spark), command], stdin=stdin, timeout=timeout, check=check)


def inside(spark: Spark, *argv: str, timeout: float = 300, check: bool = True) -> str:
    """Run a program in the Spark as root: what a person at its keyboard could do."""
    return run([*inside_argv(spark), *argv], timeout=timeout, check=check)


def inside_argv(spark: Spark) -> list[str]:
    """What goes before a program's own words, to have it run there."""
    outer = int((spark.home / "pid").read_text())
    return ["nsenter", "-t", run(["pgrep", "-P", str(outer)]).split()[0], "--all"]


def wait_until_up(sparks: Sequence[Spark]) -> None:
    keys = [f"{_known_as(spark)} {host_key(spark)}" for spark in sparks]
    # Whole or not at all: others on this machine log in to the Sparks meanwhile.
    new = RUN / f"known_hosts-{os.getpid()}"
    new.write_text("\n".join([*keys, ""]))
    new.replace(RUN / "known_hosts")
    for spark in sparks:
        try:
            wait_for(partial(_answers, spark), f"sshd and dockerd of {spark.name}")
        except SimulatorError as error:
            log = (spark.home / "init.log").read_text()
            raise SimulatorError(f"{error}\n{log}".rstrip()) from None


def _known_as(spark: Spark) -> str:
    """Its name in known_hosts."""
    port = spark.traits.ssh_port
    return spark.address if port == 22 else f"[{spark.address}]:{port}"


def _answers(spark: Spark) -> bool:
    return "ok" in on(spark, "docker info >/dev/null 2>&1 && echo ok", check=False)


def set_knobs(spark: Spark, **knobs: object) -> None:
    """What the engine stand-ins started from now on will do (see standins/standin/knobs.py)."""
    spark.knobs.write_text(json.dumps(knobs))


@contextlib.contextmanager
def turned(sparks: Sequence[Spark], **knobs: object) -> Iterator[None]:
    """What the engine stand-ins that start meanwhile will do there."""
    for spark in sparks:
        set_knobs(spark, **knobs)
    try:
        yield
    finally:
        for spark in sparks:
            spark.knobs.unlink()


def existing() -> list[Spark]:
    """The Sparks that were started and not taken away."""
    found = [int(folder.name.removeprefix("spark-")) for folder in RUN.glob("spark-*") if folder.is_dir()]
    return [Spark(index, _traits(RUN / f"spark-{index}" / "traits.json")) for index in sorted(found)]


def _traits(path: Path) -> Traits:
    """The usual ones of a Spark that was cut short before it got any."""
    if not path.exists():
        return Traits()
    kept = json.loads(path.read_text())
    return Traits(**{**kept, "docker_flags": tuple(kept["docker_flags"])})


def plug_in(sparks: Sequence[Spark]) -> None:
    """Networks, keys and settings of Sparks that are not powered on yet."""
    RUN.mkdir(parents=True, exist_ok=True)
    prepare(sparks)
    network.up(list(sparks))


def down() -> None:
    """Take everything away that `up` and the Sparks made, also after a crash halfway."""
    if not CLAIM.exists() or CLAIM.read_text() != str(ROOT):
        return
    sparks = existing()
    for spark in sparks:
        power_off(spark)
    network.down(sparks)
    for spark in sparks:
        _unmount(spark)
        _remove_cgroups(spark)
    if RUN.exists():
        shutil.rmtree(RUN)
    CLAIM.unlink(missing_ok=True)


def _remove_cgroups(spark: Spark) -> None:
    # Those of another simulation may go meanwhile, over which os.walk passes. The deepest first.
    for base, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if spark.cgroup in Path(base).parts:
            wait_for(partial(_rmdir, Path(base)), f"{base} to be free", limit=10)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
