"""`./spark COMMAND`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from pydantic import ValidationError

from components.problems import Refused
from components.settings import Ssh
from ops import (
    adopt,
    bench,
    check,
    demo,
    destroy,
    doctor,
    gates,
    guard,
    look,
    matrix,
    measure,
    models,
    policy,
    prune,
    pulumi,
    recipe,
    reference,
    sbom,
    schema,
    setup,
    switch,
    trust,
)
from ops.project import pass_on, project
from ops.pulumi import CommandError
from ops.stack import selected

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="LLM inference on NVIDIA DGX Sparks, converged by Pulumi.",
)


StackOption = Annotated[str | None, typer.Option(help="By default the selected one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
UserOption = Annotated[
    str | None, typer.Option(help="The account on every Spark; by default as in the stack, ssh_config, or nvidia.")
]
PortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Of their sshd; by default as in the stack, ssh_config, or 22.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def asker(yes: bool) -> Callable[[str], bool]:
    """Asks on the terminal, or takes everything for confirmed."""
    return lambda question: yes or typer.confirm(question)


def words(text: str) -> list[str]:
    """Between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def given_login(user: str | None, port: int | None, key: str | None) -> Ssh:
    """What the command line says of the login. Raises CommandError for an account that can't be."""
    try:
        return Ssh.model_validate({"user": user, "port": port, "privateKeyFile": key})
    except ValidationError as error:
        raise CommandError(f"--user: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


@app.command(name="demo")
def demo_command(
    down: Annotated[bool, typer.Option("--down", help="Take the demonstration away again.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="With --down: empty the simulator's cache too.")] = False,
    sparks: Annotated[int, typer.Option(min=1, max=8, help="How many to simulate.")] = 2,
    docker: Annotated[
        Literal["26", "28"], typer.Option(help="Of the Sparks: Debian 13's, or the one of Debian unstable.")
    ] = "26",
    real: Annotated[
        bool,
        typer.Option("--real", help="With a genuine vLLM, on processors: 10 GB of memory, 14 of disk."),
    ] = False,
) -> None:
    """Simulate Sparks on this machine, bring them up with Pulumi and ask the endpoint a question."""
    if purge and not down:
        raise typer.BadParameter("goes with --down", param_hint="--purge")
    if down:
        demo.down(purge=purge)
    else:
        demo.up(sparks, docker, real=real)


@app.command(name="test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test_command(context: typer.Context) -> None:
    """Linters, types and tests; --all: the long ones too; else words go to pytest (./spark test tests/unit -k gid)."""
    raise typer.Exit(gates.run(context.args))


# From Pulumi's first word on nothing is looked at, so that `--` reaches Pulumi too.
PASSED = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def pulumi_command(word: str, about: str) -> None:
    """`./spark WORD …` is `pulumi WORD …`, by whichever Pulumi runs here."""

    @app.command(name=word, context_settings=PASSED, help=about)
    def command(context: typer.Context) -> None:
        raise typer.Exit(pass_on([word, *context.args]))


for each_word, its_help in (
    ("preview", "pulumi preview: what `up` would change."),
    ("up", "pulumi up: bring the Sparks to what the stack says."),
    ("config", "pulumi config: read and write settings."),
    ("stack", "pulumi stack: outputs, and the stacks that there are."),
    ("cancel", "pulumi cancel: take away the lock of a run that was killed."),
):
    pulumi_command(each_word, its_help)


@app.command(name="engine", context_settings=PASSED)
def engine_command(context: typer.Context) -> None:
    """Run pulumi against the demonstration: the Pulumi CLI where it is on PATH, else the hermetic engine."""
    raise typer.Exit(pulumi.passthrough(context.args))


@app.command(name="measure")
def measure_command(
    stack: Annotated[str | None, typer.Option(help="Of real Sparks, while they serve; else on simulated ones.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The short ones, each once, in some three minutes.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Of preview, growth, up, switch, copy, start; several between commas.")
    ] = None,
) -> None:
    """What the program adds to an engine's own time, against what people would do otherwise, in one run."""
    raise typer.Exit(measure.measure(stack, words(",".join(only or [])), quick=quick))


@app.command(name="models")
def models_command(
    words: Annotated[list[str] | None, typer.Argument(help="In the name, the repository or the quantisation.")] = None,
    stack: Annotated[str | None, typer.Option(help="Take Sparks, engine and catalog from this stack's file.")] = None,
    sparks: Annotated[int | None, typer.Option(min=1, help="How many Sparks; 2 without a stack.")] = None,
    engine: Annotated[str | None, typer.Option(help="vllm, sglang or trtllm.")] = None,
    fitting: Annotated[bool, typer.Option("--fits", help="Those alone that fit.")] = False,
    task: Annotated[str | None, typer.Option(help="generate, embed or score.")] = None,
    sort: Annotated[models.Sort | None, typer.Option(help="By default as the catalog has them.")] = None,
    mbps: Annotated[float, typer.Option(min=0.1, help="Mbit/s from the hub, for the minutes.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """What you can run on your Sparks, how fast others say it is, and what it takes in minutes and gigabytes."""
    wanted = models.Wanted(words or [], fitting, task, sort, mbps)
    models.show(models.hardware(stack, sparks, engine), wanted, as_json=as_json)


recipes = typer.Typer(no_args_is_help=True, help="Models as others serve them.")
app.add_typer(recipes, name="recipe")


@recipes.command(name="import")
def recipe_import_command(
    source: Annotated[str, typer.Argument(help="A file, an https address, or a directory of recipes.")],
    catalog: Annotated[
        str | None, typer.Option(help="Write the entry into this file of yours, made where there is none.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the entry; by default the file's.")] = None,
) -> None:
    """Read a recipe of sparkrun or of spark-vllm-docker: a catalog entry, and a stack's settings for it."""
    recipe.show(source, catalog, name)


@app.command(name="switch")
def switch_command(
    target: Annotated[str | None, typer.Argument(help="A model, or the name of another stack.")] = None,
    stack: StackOption = None,
    yes: YesOption = False,
    show: Annotated[bool, typer.Option("--list", help="The stacks and what they serve.")] = False,
    stage_only: Annotated[
        bool, typer.Option("--stage-only", help="Put the model's weights in place; no more.")
    ] = False,
) -> None:
    """Serve another model or stack; put the former one back when the new one does not get ready."""
    where = project(stack)
    if show or target is None:
        switch.show(where)
    else:
        switch.switch(where, target, stack, asker(yes), stage_only=stage_only)


@app.command(name="rollback")
def rollback_command(stack: StackOption = None, yes: YesOption = False) -> None:
    """Return to the last configuration that served."""
    switch.rollback(project(stack), stack, asker(yes))


@app.command(name="destroy")
def destroy_command(stack: StackOption = None, yes: YesOption = False) -> None:
    """Take everything of a stack away, also with a Spark switched off or a state that was lost."""
    raise typer.Exit(0 if destroy.destroy(selected(stack), asker(yes)) else 1)


@app.command(name="adopt")
def adopt_command(stack: StackOption = None, yes: YesOption = False) -> None:
    """After a lost state: an `up` that takes over what serves as it is wanted, without a restart."""
    raise typer.Exit(0 if adopt.adopt(selected(stack), asker(yes)) else 1)


@app.command(name="status")
def status_command(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Every Spark and the endpoint, as they are now."""
    found = look.status(selected(stack))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        look.show(found)


@app.command(name="logs")
def logs_command(
    names: Annotated[list[str] | None, typer.Argument(help="Sparks or components (server, ray-head); all.")] = None,
    stack: StackOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Of each, to begin with.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    since: Annotated[str, typer.Option(help="10m, 2h or a time.")] = "",
    as_json: JsonOption = False,
) -> None:
    """The logs of all ranks, merged."""
    look.logs(selected(stack), names or [], lines=lines, follow=follow, since=since, as_json=as_json)


@app.command(name="shell")
def shell_command(
    spark: Annotated[str | None, typer.Argument(help="By default the head.")] = None,
    command: Annotated[list[str] | None, typer.Argument(help="In place of a shell.")] = None,
    stack: StackOption = None,
) -> None:
    """A shell in a rank's container, with its environment."""
    raise typer.Exit(look.shell(selected(stack), spark, command or []))


@app.command(name="check")
def check_command(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Ask the endpoint all that its users will (completion, chat, streaming, tools; of a model that makes no text its
    embeddings or scores), and whether every GPU works."""
    if not check.show(check.run(selected(stack)), as_json=as_json):
        raise typer.Exit(1)


@app.command(name="init")
def init_command(
    stack: Annotated[str, typer.Argument(help="Its name; the file is Pulumi.NAME.yaml.")] = "head-worker",
    hosts: Annotated[str, typer.Option(help="Names or addresses of the Sparks with commas, the head first.")] = "",
    user: UserOption = None,
    port: PortOption = None,
    key: Annotated[str | None, typer.Option(help="Your private key, or agent.")] = None,
    engine: Annotated[str, typer.Option(help="vllm, sglang or trtllm.")] = "vllm",
    model: Annotated[
        str, typer.Option(help="A name of `./spark models`, or any Hugging Face repository.")
    ] = "gpt-oss-120b",
    force: Annotated[bool, typer.Option("--force", help="Write a file anew that is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the host keys as they are shown.")] = False,
) -> None:
    """Look at your Sparks and write the stack's file for them."""
    chosen = hosts or typer.prompt("The Sparks' names or addresses (ordinary Ethernet), the head first, with commas")
    login = given_login(user, port, key)
    every = words(chosen)
    if not user and not yes:
        user = typer.prompt("Account on the Sparks", setup.at(every[:1], login)[0].user)
    setup.init(
        pulumi.ROOT, stack, every, given_login(user, port, key),
        asker(yes), chosen=(engine, model), force=force,
    )  # fmt: skip


@app.command(name="setup-ssh")
def setup_ssh_command(
    hosts: Annotated[str, typer.Option(help="Names or addresses with commas; by default the stack's.")] = "",
    stack: StackOption = None,
    user: UserOption = None,
    port: PortOption = None,
    key: Annotated[str | None, typer.Option(help="Your private key; made where there is none.")] = None,
    yes: YesOption = False,
) -> None:
    """Put your key onto the Sparks and their account into the group docker."""
    login = given_login(user, port, key)
    if hosts:
        nodes = setup.at(words(hosts), login)
    else:
        inputs = login.model_dump(exclude_none=True, exclude={"host_keys"})
        nodes = tuple(node.model_copy(update=inputs) for node in selected(stack).settings.nodes)
    setup.setup_ssh(nodes, login, asker(yes))


@app.command(name="setup-network")
def setup_network_command(
    stack: StackOption = None,
    subnets: Annotated[str, typer.Option(help="One per twin, with a comma.")] = ",".join(setup.SUBNETS),
    undo: Annotated[bool, typer.Option("--undo", help="Take away what this command wrote.")] = False,
    yes: YesOption = False,
) -> None:
    """Give both halves of the QSFP port addresses and MTU 9000, by netplan on every Spark; needs sudo there."""
    setup.setup_network(selected(stack), asker(yes), subnets=subnets.split(","), undo=undo)


@app.command(name="setup-guard")
def setup_guard_command(
    stack: StackOption = None,
    open_: Annotated[str, typer.Option("--open", help="Ports of your own to leave open, with commas.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take away what this command wrote.")] = False,
    yes: YesOption = False,
) -> None:
    """Let what the Sparks say among themselves come in by the fabric alone, by nftables on each; needs sudo there."""
    try:
        more = [int(word) for word in words(open_)]
    except ValueError:
        raise typer.BadParameter("a port, or several with commas", param_hint="--open") from None
    guard.setup_guard(selected(stack), asker(yes), more=more, undo=undo)


@app.command(name="bench")
def bench_command(
    profile: Annotated[str | None, typer.Argument(help=f"{', '.join(bench.PROFILES)}; quick.")] = None,
    stack: StackOption = None,
    prompts: Annotated[int | None, typer.Option("-n", "--prompts", min=1, help="How many requests.")] = None,
    input_tokens: Annotated[int | None, typer.Option("-i", "--input", min=1, help="Tokens of each prompt.")] = None,
    output_tokens: Annotated[int | None, typer.Option("-o", "--output", min=1, help="Tokens of each answer.")] = None,
    concurrency: Annotated[
        str | None, typer.Option("-c", "--concurrency", help="Requests at a time; several for a sweep: 1,4,16.")
    ] = None,
    rate: Annotated[float | None, typer.Option("-r", "--rate", min=0.01, help="Requests per second.")] = None,
    matrix_: Annotated[bool, typer.Option("--matrix", help="Over models and engines, one after the other.")] = False,
    only: Annotated[str, typer.Option("--models", help="With --matrix: names, with commas; all that fit.")] = "",
    engines: Annotated[str, typer.Option(help="With --matrix: names, with commas; the stack's.")] = "",
    nodes: Annotated[str, typer.Option(help="With --matrix: any, single (fits one Spark) or multi.")] = "any",
    skip_gated: Annotated[bool, typer.Option("--skip-gated", help="With --matrix: only what needs no token.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --matrix: what would be measured.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast the endpoint is: time to first token, between tokens, whole answers, tokens per second."""
    if nodes not in ("any", "single", "multi"):
        raise typer.BadParameter("any, single or multi", param_hint="--nodes")
    try:
        sweep = [int(word) for word in concurrency.split(",")] if concurrency else []
    except ValueError:
        raise typer.BadParameter("a number, or several with commas", param_hint="--concurrency") from None
    limit = sweep[0] if len(sweep) == 1 else None
    sizes = {"prompts": prompts, "input": input_tokens, "output": output_tokens, "concurrency": limit, "rate": rate}
    chosen, where = bench.chosen(profile, **sizes), selected(stack)
    if not matrix_:
        for one in [replace(chosen, concurrency=count) for count in sweep] or [chosen]:
            result = bench.run(where, one)
            bench.show(result, bench.former(result), as_json=as_json)
        return
    wanted = matrix.Wanted(
        models=[word for word in only.split(",") if word],
        engines=[word for word in engines.split(",") if word],
        nodes=cast(Literal["any", "single", "multi"], nodes),
        skip_gated=skip_gated,
        concurrency=sweep,
    )
    if dry_run:
        matrix.plan(where, wanted, chosen)
    elif yes or typer.confirm(f"{where.stack} will serve one model after the other, for hours. Go on?"):
        folder = matrix.run(where, wanted, chosen, lambda text: print(text, flush=True))
        print((folder / "summary.txt").read_text(), folder, sep="\n")


@app.command(name="doctor")
def doctor_command(
    stack: StackOption = None,
    bandwidth: Annotated[bool, typer.Option("--bandwidth", help="Measure the fabric too, some seconds.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write all that was found to this file; no secrets.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every check of every Spark, with what was found and how to mend it. Changes nothing."""
    findings, about = doctor.examine(selected(stack), bandwidth=bandwidth, texts=report is not None)
    fine = doctor.show(findings, as_json=as_json)
    if report:
        doctor.write(report, findings, about)
    raise typer.Exit(0 if fine else 1)


@app.command(name="prune")
def prune_command(
    only: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Repositories; all.")] = None,
    stack: StackOption = None,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take models, and what was compiled for them, off the Sparks where no stack uses them."""
    prune.prune(selected(stack), only or [], asker(yes), as_json=as_json, dry_run=dry_run)


@app.command(name="lock")
def lock_command() -> None:
    """Write the lock files anew: each requirements*.txt from its .in."""
    raise typer.Exit(gates.lock())


@app.command(name="sbom")
def sbom_command(
    stack: Annotated[str | None, typer.Option(help="With what this stack has put on its Sparks.")] = None,
) -> None:
    """A bill of materials, as CycloneDX JSON: the packages that are installed here and, of a stack, image and model."""
    there = list(sbom.on_sparks(selected(stack).outputs)) if stack else []
    print(json.dumps(sbom.bill([*sbom.environment(), *there]), indent=1))


@app.command(name="policy")
def policy_command(stack: StackOption = None) -> None:
    """Hold a preview of the stack against the rules in policy/; changes nothing."""
    where = project(stack)
    raise typer.Exit(0 if policy.show(policy.examine(where, where.chosen(stack))) else 1)


@app.command(name="trust")
def trust_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that need the simulated Sparks, and all faults: hours.")
    ] = False,
    faults: Annotated[
        str | None, typer.Option(help="Only bring about the faults whose tests' names match these words (pytest's -k).")
    ] = None,
    properties: Annotated[
        str | None, typer.Option(help="Only those with this in the name of a test, also on simulated Sparks.")
    ] = None,
) -> None:
    """Run the tests of what holds of secrets, ports and rights, and write docs/trust.md anew with their counts."""
    if properties is None and faults is None:
        print(trust.write(everything=everything))
    if properties is not None:
        print(trust.write_properties(properties))
    if faults is not None:
        print(trust.write_faults(faults))


@app.command(name="docs")
def docs_command() -> None:
    """Write anew what is made of the settings (docs/configuration.md, the schema for editors), of the catalog, and of
    what was counted (docs/trust.md)."""
    print(reference.write())
    print(models.write())
    print(schema.write())
    print(trust.renew())


def main() -> None:
    try:
        app(prog_name="./spark")
    except (CommandError, Refused) as error:
        print(f"spark: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
