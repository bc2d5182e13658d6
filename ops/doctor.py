"""`./spark doctor`: every check of every Spark, with what was found and how to mend it. Changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Literal

import requests
from rich.console import Console
from rich.table import Table

from components import ports as table
from components.facts import fabric
from components.facts.spark import NodeFacts
from components.facts.usable import unusable
from components.plan import checks, host, models, orders, steps
from components.plan.engines import flags
from components.plan.engines.registry import image_name
from components.plan.values import Identity
from components.problems import Problem, Severity
from components.programs import qualification
from components.scripts.contracts import Doctor, Examined, Gpu, GuardState
from ops import check as probing
from ops.pulumi import CommandError
from ops.stack import Stack

console = Console(highlight=False, soft_wrap=True)

State = Literal["ok", "note", "warning", "FAILED"]

SKEW = 5
"""Seconds that clocks may differ: more confuses logs, and certificates when it grows."""

LOW_DISK = 50 * 10**9
"""Bytes free below which the next model will not find room. Arbitrary."""

LOW_MEMORY = 100 * 2**30
"""Bytes free on an idle Spark; some pairs never have more than 102 GiB. Source: MiaAI-Lab, GLM-5.3-Flash on two Sparks,
issue 47."""

ALL = "cluster"
"""In place of a Spark's name: what concerns all of them."""

STATES: Mapping[Severity, State] = {Severity.REFUSE: "FAILED", Severity.WARN: "warning", Severity.NOTE: "note"}

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "FAILED": "red"}


@dataclass(frozen=True)
class Finding:
    spark: str
    check: str
    state: State
    detail: str
    fix: str = ""


class Answer(Examined):
    """What scripts/doctor.py says."""

    skew: float
    """Seconds that its clock is off this machine's, at least."""


Answers = Mapping[str, Answer]
"""By node."""


def examine(cluster: Stack, *, bandwidth: bool = False, texts: bool = False) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, what a report holds beside them)."""
    facts, unreachable = cluster.facts()
    findings = [Finding(problem.at, "SSH", "FAILED", problem.wrong, problem.fix) for problem in unreachable]
    if not facts:
        return findings, {}
    links = fabric.detect(cluster.settings, facts)[0] if len(facts) == len(cluster.settings.nodes) > 1 else {}
    answers = _ask(cluster, facts, links, texts=texts)
    findings += [Finding(name, "SSH", "ok", f"{node.hostname}, {node.architecture}") for name, node in facts.items()]
    for name, node in facts.items():
        findings += _spark(cluster, name, node)
        findings += _beside(cluster, name, node, answers[name])
    findings += [_found("host", problem) for problem in host.troubles(cluster.settings, facts)]
    findings += _speeds(cluster, facts)
    if not unreachable:
        findings += together(cluster, facts, answers)
        findings += _fabric(cluster, facts, links, answers)
        findings += _bandwidth(cluster, facts, links) if bandwidth and links else []
    report = {
        "settings": cluster.settings.model_dump(mode="json", exclude={"hf_token", "api_key"}),
        "facts": {name: node.model_dump(mode="json") for name, node in facts.items()},
        "answers": dict(answers),
    }
    return findings, report


def _ask(
    cluster: Stack, facts: Mapping[str, NodeFacts], links: Mapping[str, fabric.NodeLink], *, texts: bool
) -> Answers:
    listens = sorted({port for _, port in checks.used_ports(cluster.settings)})
    before = time.time()
    found: dict[str, Examined] = cluster.ask(
        "doctor.py",
        {
            name: Doctor(
                cache=facts[name].cache.path,
                peers={peer: link.address for peer, link in links.items() if peer != name},
                interface=links[name].interface if name in links else "",
                mtu=links[name].mtu if name in links else 0,
                ports=listens,
                texts=texts,
            )
            for name in facts
        },
        limit=120,
    )
    after = time.time()
    # Half of what the question took is the best guess of when it was answered.
    skews = {name: max(before - one["time"], one["time"] - after, 0.0) for name, one in found.items()}
    return {name: Answer(**one, skew=skews[name]) for name, one in found.items()}


def _spark(cluster: Stack, name: str, node: NodeFacts) -> Iterator[Finding]:
    """From the probe that every preview makes."""
    settings = cluster.settings
    (config,) = cluster.nodes([name])
    problems = {problem.wrong: problem for problem in unusable(config, node, settings)}
    for wrong, problem in problems.items():
        yield Finding(name, "usable", "FAILED", wrong, problem.fix)
    if not node.docker.problem:
        yield Finding(name, "Docker", "ok", node.docker.version)
    if node.gpus:
        gpus = ", ".join(f"{gpu.name}, driver {gpu.driver}" for gpu in node.gpus)
        yield Finding(name, "GPU", "ok", gpus)
    yield _limit(name, "disk", node.cache.free, LOW_DISK, 1e9, "GB", f"free in {node.cache.path}", "./spark prune")
    ours = any(one.running and "dgx-spark.component" in one.labels for one in node.docker.containers)
    if ours:
        yield Finding(name, "memory", "ok", f"{node.available / 2**30:.0f} GiB free, an engine runs")
    else:
        yield _limit(
            name, "memory", node.available, LOW_MEMORY, 2**30, "GiB", "free and no engine of ours runs",
            "end what else uses it: ps aux --sort -rss | head",
        )  # fmt: skip
    yield _lease(cluster, name, node)
    record = node.records.get(models.WEIGHTS)
    if record is None:
        yield Finding(name, "weights", "note", "none recorded")
    elif record.intact:
        about = record.model or {}
        yield Finding(name, "weights", "ok", f"{about.get('repo')}@{str(about.get('commit'))[:12]}")
    else:
        yield Finding(name, "weights", "FAILED", "files are missing or were changed", "pulumi up puts them right")
    broken = sorted(kind for kind, one in node.records.items() if not one.intact and kind != models.WEIGHTS)
    if broken:
        yield Finding(name, "records", "warning", f"not as they were left: {', '.join(broken)}", "pulumi up")


def _found(check: str, problem: Problem) -> Finding:
    return Finding(problem.at, check, STATES[problem.severity], problem.wrong, problem.fix)


def _speeds(cluster: Stack, facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """Of every GPU while the endpoint answers, if it does; with a Spark away it does not."""
    settings = cluster.settings
    serve = len(facts) == len(settings.nodes) and all(_serves(cluster, node) for node in facts.values())
    if not serve or "api_base" not in cluster.outputs:
        return
    task = models.served_task(settings, facts[settings.head.name])
    try:
        looks = probing.under_load(cluster, probing.api_of(cluster), task)
    except (probing.Wrong, requests.RequestException):
        return  # `./spark check` says what is the matter with the endpoint
    for name, seen in looks.items():
        yield speed(name, seen)


def _serves(cluster: Stack, node: NodeFacts) -> bool:
    return any(one.running and one.labels.get("dgx-spark.stack") == cluster.identity for one in node.docker.containers)


LOADED = 80
"""Per cent of utilization from which a GPU's clock says something; an idle one's is about 200 MHz."""

USUAL, SLOW, STUCK = 2400, 1800, 1000
"""MHz of a GB10 under load: what it has, what is too little when it is hot, and below which it is in a state that only
pulling the plug ends (500 to 850 have been seen, at 15 W). Source: Blackwellboy/model-serving-minefield, pull 55."""

HOT = 80
"""Degrees Celsius."""


def speed(name: str, looks: Sequence[Gpu]) -> Finding:
    """`looks`: as scripts/gpu_busy.py prints them."""
    loaded = [look for look in looks if (look["busy"] or 0) >= LOADED]
    if len(loaded) < 3:
        return Finding(name, "GPU clock", "note", "not under load, so its clock says nothing")
    clock = median(look["clock"] or 0 for look in loaded)
    power = median(look["power"] or 0 for look in loaded)
    temperature = median(look["temperature"] or 0 for look in loaded)
    if clock < STUCK:
        return Finding(
            name, "GPU clock", "FAILED",
            f"stuck at {clock:.0f} MHz and {power:.0f} W under load, where {USUAL} MHz are usual",
            "shut it down, unplug it from the wall and its cable from it for a minute; else update the firmware",
        )  # fmt: skip
    if clock < SLOW and temperature >= HOT:
        hot = f"{clock:.0f} MHz at {temperature:.0f} °C under load: it is too hot"
        return Finding(name, "GPU clock", "warning", hot, "give it air; Sparks on top of each other heat each other")
    return Finding(name, "GPU clock", "ok", f"{clock:.0f} MHz, {power:.0f} W, {temperature:.0f} °C under load")


def guards(name: str, found: str) -> Finding:
    if found:
        return Finding(name, "memory guard", "ok", found)
    return Finding(
        name, "memory guard", "warning", "nothing ends a process before memory is full, and then the whole Spark hangs",
        "on it: sudo apt install earlyoom",
    )  # fmt: skip


def walled(name: str, found: GuardState) -> Finding:
    if found["active"] and found["text"]:
        return Finding(name, "guard", "ok", "the cluster's own ports are reached by the fabric alone")
    return Finding(
        name, "guard", "note", "what the Sparks say among themselves is reached from every network (docs/trust.md)",
        "./spark setup-guard",
    )  # fmt: skip


def fabric_tools(facts: Mapping[str, NodeFacts]) -> Finding | None:
    without = [name for name, node in facts.items() if not node.perftest]
    if not without:
        return None
    detail = f"no perftest on {', '.join(without)}: RDMA is not measured, only TCP"
    return Finding(ALL, "bandwidth", "warning", detail, "on it: sudo apt install perftest")


def _limit(name: str, check: str, value: int, least: int, unit: float, word: str, what: str, fix: str) -> Finding:
    detail = f"{value / unit:.0f} {word} {what}"
    return Finding(name, check, "ok" if value >= least else "warning", detail, "" if value >= least else fix)


def _lease(cluster: Stack, name: str, node: NodeFacts) -> Finding:
    if node.lease is None:
        return Finding(name, "lease", "ok", "nobody's")
    if node.lease.stack == cluster.identity:
        return Finding(name, "lease", "ok", "this stack's")
    return Finding(
        name,
        "lease",
        "warning",
        f"held by {node.lease.stack}",
        "pulumi destroy there, or pulumi config set takeover true",
    )


def _beside(cluster: Stack, name: str, node: NodeFacts, answer: Answer) -> Iterator[Finding]:
    """From scripts/doctor.py."""
    if answer["memlock"] in (None, -1):
        yield Finding(name, "memlock", "ok", "unlimited" if answer["memlock"] == -1 else "not to be seen")
    else:
        yield Finding(
            name, "memlock", "warning", f"Docker's daemon may lock {answer['memlock']} bytes; RDMA registers more",
            "on it: LimitMEMLOCK=infinity in a drop-in of docker.service",
        )  # fmt: skip
    if answer["foreign"]:
        paths = ", ".join(answer["foreign"][:3])
        yield Finding(
            name, "cache", "FAILED", f"not {cluster.settings.login(name).user}'s to write: {paths} …",
            f"on it: sudo chown -R {cluster.settings.login(name).user} {node.cache.path}",
        )  # fmt: skip
    else:
        yield Finding(name, "cache", "ok", node.cache.path)
    yield guards(name, answer["guard"])
    if len(cluster.settings.nodes) > 1:
        yield walled(name, answer["wall"])
    if answer["containers"]:
        yield Finding(name, "others", "note", f"containers of others run: {', '.join(answer['containers'])}")
    if answer["skew"] > SKEW:
        yield Finding(
            name, "clock", "warning", f"{answer['skew']:.0f} s off this machine's", "on it: timedatectl set-ntp true"
        )
    else:
        yield Finding(name, "clock", "ok", "as this machine's")
    if checks.on_swarm(cluster.settings):
        state = answer["swarm"]["state"]
        yield Finding(name, "Swarm", "ok" if state == "active" else "note", state)
        if not node.sudo:
            yield Finding(name, "sudo", "FAILED", "asks for a password, and Swarm needs it", "see ./spark setup-ssh")


def together(cluster: Stack, facts: Mapping[str, NodeFacts], answers: Answers) -> Iterator[Finding]:
    """What must be the same, or fit, on all Sparks."""
    settings = cluster.settings
    identity = Identity(*cluster.identity.split("/"))
    same: Sequence[Problem] = [
        *checks.machines(settings, facts),
        *checks.engine(settings, facts),
        *checks.ports(settings, identity, facts[settings.head.name]),
    ]
    for problem in same:
        yield Finding(problem.at, "settings", "FAILED", problem.wrong, problem.fix)
    yield _alike(
        "driver", {name: node.gpus[0].driver for name, node in facts.items() if node.gpus}, "update the others"
    )
    yield _alike("kernel", {name: answer["kernel"] for name, answer in answers.items()}, "update the others")
    image = image_name(settings)
    yield _age(image, date.today())
    yield same_image(image, facts)


def same_image(image: str, facts: Mapping[str, NodeFacts]) -> Finding:
    """By content: the id of one image differs between Docker's stores."""
    found = {name: node.docker.contents.get(image) for name, node in facts.items()}
    if not any(found.values()):
        return Finding(ALL, "image", "note", f"{image} is on none of the Sparks yet")
    if len({one and one.content for one in found.values()}) == 1:
        return Finding(ALL, "image", "ok", image)
    shown = (f"{name} {one.id.removeprefix('sha256:')[:12] if one else 'missing'}" for name, one in found.items())
    return Finding(ALL, "image", "warning", ", ".join(shown), "pulumi up, or image.source copy")


OLD_IMAGE = 6
"""Months after which an engine's image is worth a look; models and kernels for GB10 come monthly. Arbitrary."""


def _age(image: str, today: date) -> Finding:
    months = flags.age(image, today)
    if months is None:
        return Finding(ALL, "image age", "note", f"the name of {image} does not tell when it came out")
    words = f"{image.partition('@')[0]} came out {months} months ago"
    fix = "pulumi config rm --path image.name takes today's, or name a newer one"
    return Finding(
        ALL, "image age", "ok" if months < OLD_IMAGE else "warning", words, fix if months >= OLD_IMAGE else ""
    )


def _alike(check: str, values: Mapping[str, str], fix: str) -> Finding:
    if len(set(values.values())) <= 1:
        return Finding(ALL, check, "ok", next(iter(values.values()), "none"))
    return Finding(ALL, check, "warning", ", ".join(f"{name} {value}" for name, value in values.items()), fix)


def _fabric(
    cluster: Stack, facts: Mapping[str, NodeFacts], links: Mapping[str, fabric.NodeLink], answers: Answers
) -> Iterator[Finding]:
    settings = cluster.settings
    if len(settings.nodes) == 1:
        return
    for problem in fabric.detect(settings, facts)[1]:
        yield Finding(problem.at, "link", "FAILED", problem.wrong, problem.fix)
    for name, link in links.items():
        devices = f"{', '.join(link.hcas)}, GID {link.gid_index}" if link.hcas else "no RDMA device"
        yield Finding(name, "link", "ok", f"{link.interface} {link.address}/{link.prefix}, MTU {link.mtu}, {devices}")
    for warning in fabric.warnings(settings, facts, links):
        found = _found("link", warning)
        yield found if warning.at in facts else replace(found, spark=ALL)
    for name, answer in answers.items():
        for peer, state in answer["pings"].items():
            yield _ping(name, peer, state, links[name].mtu)
        for peer, states in answer["ports"].items():
            yield _firewall(name, peer, states)


def _ping(name: str, peer: str, state: str, mtu: int) -> Finding:
    if state == "answers":
        return Finding(name, "peer", "ok", f"{peer} answers, with {mtu} bytes too")
    if state == "silent":
        return Finding(name, "peer", "FAILED", f"{peer} does not answer on the fabric", "cable, switch, or a firewall")
    return Finding(
        name,
        "peer",
        "FAILED",
        f"{peer} answers, but not to packets of {mtu} bytes",
        "MTU 9000 on both ends and the switch",
    )


def _firewall(name: str, peer: str, states: Mapping[str, str]) -> Finding:
    closed = [port for port, state in states.items() if state == "filtered"]
    if closed:
        return Finding(
            name, "firewall", "FAILED", f"{peer} lets nothing through to port {', '.join(closed)}",
            f"on {peer}: sudo ufw allow in on its fabric interface (Ray and NCCL use many ports)",
        )  # fmt: skip
    return Finding(name, "firewall", "ok", f"{peer} lets {', '.join(states)} through")


def _bandwidth(
    cluster: Stack, facts: Mapping[str, NodeFacts], links: Mapping[str, fabric.NodeLink]
) -> Iterator[Finding]:
    wanted = steps.qualify(cluster.settings, links, ())
    if wanted is None:
        yield Finding(ALL, "bandwidth", "note", "fabric.minRdmaGbps and minTcpGbps are 0: not measured")
        return
    if unmeasured := fabric_tools(facts):
        yield unmeasured
    try:
        for figure in qualification.measure(orders.qualification(cluster.settings, wanted)):
            slow = qualification.too_slow(figure, dict(wanted.minimum))
            state: State = "FAILED" if slow else "ok"
            yield Finding(figure.source, "bandwidth", state, str(figure), qualification.CAUSES if slow else "")
    except qualification.Failed as failed:
        yield Finding(ALL, "bandwidth", "FAILED", str(failed), f"is port {table.PERFTEST} open on the fabric?")


def show(findings: Sequence[Finding], *, as_json: bool) -> bool:
    """Whether nothing has failed."""
    fine = not any(one.state == "FAILED" for one in findings)
    if as_json:
        print(json.dumps({"fine": fine, "findings": [asdict(one) for one in findings]}, indent=1))
        return fine
    shown = Table()
    for heading in ("Spark", "Check", "", "Found"):
        shown.add_column(heading, overflow="fold")
    for one in sorted(findings, key=lambda one: one.spark):
        text = one.detail + (f"\n→ {one.fix}" if one.fix else "")
        shown.add_row(one.spark, one.check, f"[{STYLES[one.state]}]{one.state}[/]", text.replace("[", r"\["))
    console.print(shown)
    return fine


def write(path: Path, findings: Sequence[Finding], report: Mapping[str, Any]) -> None:
    """For bug reports: no token and no key is in it, since none is ever asked for."""
    content = {"findings": [asdict(one) for one in findings], **report}
    try:
        path.write_text(json.dumps(content, indent=1, default=str))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
