"""The command line: the words of the Pulumi CLI that this project's users and tests need."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.engine.crypter import WrongPassphrase
from simulator.engine.project import Options, Project, StackFile, UserError
from simulator.engine.state import Store, backend
from simulator.engine.values import masked, plain

if TYPE_CHECKING:
    from simulator.engine.operation import Operation

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
stack_app = typer.Typer(no_args_is_help=False, invoke_without_command=True)
config_app = typer.Typer(invoke_without_command=True)
app.add_typer(stack_app, name="stack", help="init, ls, select, rm, output, export, import")
app.add_typer(config_app, name="config", help="get, set, rm")

StackOption = Annotated[str, typer.Option("--stack", "-s", help="The stack; by default the selected one.")]
Cwd = Annotated[Path, typer.Option("--cwd", "-C", help="The project's directory.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show what changes in each property.")]
Json = Annotated[bool, typer.Option("--json", "-j", help="For programs.")]
Refresh = Annotated[bool, typer.Option("--refresh", "-r", help="Look at the real resources first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoChanges = Annotated[bool, typer.Option("--expect-no-changes", help="Fail if anything would change.")]
PathFlag = Annotated[bool, typer.Option("--path", help="KEY is a path into an object or list.")]

HERE = Path()


def enter(cwd: Path) -> Project:
    """Commands of the program run in its own directory."""
    project = Project(cwd.resolve())
    os.chdir(project.folder)
    return project


def referred(project: Project, said: str) -> str:
    """STACK of what names it where state is in files: STACK, organization/STACK or organization/PROJECT/STACK."""
    *above, name = said.split("/")
    if above and above[0] != "organization":
        raise UserError("organization name must be 'organization'")
    if len(above) > 2 or not name:
        raise UserError("a stack name may not be empty")
    if above[1:] not in ([], [project.name]):
        raise UserError(f"no stack named '{said}' found")
    return name


def open_stack(cwd: Path, stack: str) -> tuple[Project, str]:
    project = enter(cwd)
    chosen = referred(project, stack) if stack else selected(project)
    if not chosen:
        raise UserError("no stack selected; please use `pulumi stack select` or pass --stack")
    return project, chosen


def existing_stack(cwd: Path, stack: str) -> tuple[Project, str]:
    project, chosen = open_stack(cwd, stack)
    if not Store(project.name, chosen).exists():
        raise UserError(f"no stack named '{chosen}' found")
    return project, chosen


def selection_file(project: Project) -> Path:
    return backend() / "workspaces" / f"{project.name}-{str(project.folder).strip('/').replace('/', '-')}.json"


def selected(project: Project) -> str:
    path = selection_file(project)
    return str(json.loads(path.read_text())["stack"]) if path.exists() else ""


def confirm(yes: bool, what: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("--yes must be passed in to proceed when running in non-interactive mode")
    if not typer.confirm(f"Do you want to perform this {what}?"):
        raise typer.Exit(0)


def operation(project: Project, stack: str, options: Options, *, dry_run: bool) -> Operation:
    # What it imports takes longer than all of a command that does without: config, stack ls, stack output.
    from simulator.engine.operation import Operation

    return Operation(project, stack, options, dry_run=dry_run)


@app.command()
def preview(
    stack: StackOption = "", cwd: Cwd = HERE, diff: Diff = False, json_: Json = False, refresh: Refresh = False,
    expect_no_changes: NoChanges = False,
    show_sames: Annotated[bool, typer.Option("--show-sames", help="With --json: what stays as it is, too.")] = False,
) -> None:  # fmt: skip
    """Show what `up` would do."""
    project, chosen = existing_stack(cwd, stack)
    options = Options(diff, json_, refresh or None, expect_no_changes, show_sames=show_sames)
    if not json_:
        print(f"Previewing update ({chosen}):")
    raise typer.Exit(operation(project, chosen, options, dry_run=True).converge())


@app.command()
def up(
    stack: StackOption = "", cwd: Cwd = HERE, diff: Diff = False, json_: Json = False, refresh: Refresh = False,
    yes: Yes = False, skip_preview: Annotated[bool, typer.Option("--skip-preview", "-f")] = False,
    expect_no_changes: NoChanges = False,
) -> None:  # fmt: skip
    """Converge."""
    project, chosen = existing_stack(cwd, stack)
    options = Options(diff, json_, refresh or None, expect_no_changes)
    with Store(project.name, chosen).locked():
        if not yes or (not skip_preview and not json_):
            print(f"Previewing update ({chosen}):")
            code = operation(project, chosen, options, dry_run=True).converge()
            if code:
                raise typer.Exit(code)
            confirm(yes, "update")
        if not json_:
            print(f"Updating ({chosen}):")
        raise typer.Exit(operation(project, chosen, options, dry_run=False).converge())


@app.command()
def destroy(
    stack: StackOption = "", cwd: Cwd = HERE, yes: Yes = False,
    refresh: Annotated[bool | None, typer.Option("--refresh/--no-refresh", "-r")] = None,
    skip_preview: Annotated[bool, typer.Option("--skip-preview", "-f")] = False, json_: Json = False,
    continue_on_error: Annotated[bool, typer.Option("--continue-on-error")] = False,
) -> None:  # fmt: skip
    """Take everything away that the stack made."""
    project, chosen = existing_stack(cwd, stack)
    options = Options(json=json_, refresh=refresh, continue_on_error=continue_on_error)
    with Store(project.name, chosen).locked():
        if not yes:
            operation(project, chosen, options, dry_run=True).destroy()
        confirm(yes, "destroy")
        if not json_:
            print(f"Destroying ({chosen}):")
        raise typer.Exit(operation(project, chosen, options, dry_run=False).destroy())


@app.command(name="refresh")
def refresh_(stack: StackOption = "", cwd: Cwd = HERE, yes: Yes = False) -> None:
    """Bring the state up to date with what really is."""
    project, chosen = existing_stack(cwd, stack)
    with Store(project.name, chosen).locked():
        confirm(yes, "refresh")
        raise typer.Exit(operation(project, chosen, Options(), dry_run=False).refresh())


@app.command()
def cancel(name: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE, yes: Yes = False) -> None:
    """Take away the lock that a killed run has left."""
    project, chosen = existing_stack(cwd, name or stack)
    if sys.stdin.isatty():
        confirm(yes, "cancellation")
    Store(project.name, chosen).cancel()
    print(f"The currently running update for '{chosen}' has been canceled!")


@app.command()
def version() -> None:
    """Say that this is not the Pulumi CLI."""
    print("hermetic engine of the simulator (not the Pulumi CLI)")


@app.command()
def install() -> None:
    """Nothing to do here: `./spark` has installed the packages."""


@stack_app.callback()
def stack_main(
    context: typer.Context, stack: StackOption = "", cwd: Cwd = HERE,
    show_name: Annotated[bool, typer.Option("--show-name", help="Only its name.")] = False,
    whole: Annotated[bool, typer.Option("--fully-qualify-stack-names", "-Q")] = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        project, chosen = existing_stack(cwd, stack)
        shown = f"organization/{project.name}/{chosen}" if whole else chosen
        rows = Store(project.name, chosen).deployment().get("resources") or []
        print(shown if show_name else f"Current stack is {shown}:\n    {len(rows)} resources")
    elif show_name or whole:
        raise UserError("this engine knows --show-name and --fully-qualify-stack-names for `stack` alone")


@stack_app.command()
def init(name: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE) -> None:
    project = enter(cwd)
    if not (name or stack):
        raise UserError("missing stack name")
    chosen = referred(project, name or stack)
    store = Store(project.name, chosen)
    if store.exists():
        raise UserError(f"stack '{chosen}' already exists")
    with store.locked():
        store.save([], StackFile(project, chosen).crypter())
    select_stack(project, chosen)
    print(f"Created stack '{chosen}'")


def select_stack(project: Project, chosen: str) -> None:
    path = selection_file(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"stack": chosen}))


@stack_app.command()
def select(name: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE, create: bool = False) -> None:
    project, chosen = (open_stack if create else existing_stack)(cwd, name or stack)
    if Store(project.name, chosen).exists():
        select_stack(project, chosen)
    else:
        init(chosen, "", project.folder)


@stack_app.command()
def ls(cwd: Cwd = HERE, json_: Json = False) -> None:
    project = enter(cwd)
    folder = backend() / "stacks" / project.name
    current = selected(project)
    found = sorted(path.stem for path in folder.glob("*.json"))
    if json_:
        print(json.dumps([{"name": name, "current": name == current} for name in found], indent=2))
        return
    for name in found:
        print(f"{name}{'*' if name == current else ''}")


@stack_app.command()
def rm(
    name: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE, yes: Yes = False, force: bool = False
) -> None:
    project, chosen = existing_stack(cwd, name or stack)
    store = Store(project.name, chosen)
    confirm(yes, "removal")
    with store.locked():
        if store.deployment().get("resources") and not force:
            raise UserError(
                f"'{chosen}' still has resources; removal rejected. Possible actions: run `pulumi destroy`, or --force"
            )
        store.remove()
    if selected(project) == chosen:
        selection_file(project).unlink()
    StackFile(project, chosen).path.unlink(missing_ok=True)
    print(f"Stack '{chosen}' has been removed!")


@stack_app.command()
def output(
    name: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE, json_: Json = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets")] = False,
) -> None:  # fmt: skip
    project, chosen = existing_stack(cwd, stack)
    crypter = StackFile(project, chosen).crypter()
    stacks = [r for r in Store(project.name, chosen).load(crypter) if r.type == "pulumi:pulumi:Stack"]
    values = stacks[0].outputs if stacks else {}
    values = plain(values) if show_secrets else masked(values)
    if name and name not in values:
        raise UserError(f"current stack does not have output property '{name}'")
    if json_:
        print(json.dumps(values[name] if name else values, indent=2))
    elif name:
        print(values[name] if isinstance(values[name], str) else json.dumps(values[name]))
    else:
        for key, value in sorted(values.items()):
            print(f"{key}  {value if isinstance(value, str) else json.dumps(value)}")


@stack_app.command()
def export(stack: StackOption = "", cwd: Cwd = HERE) -> None:
    project, chosen = existing_stack(cwd, stack)
    print(json.dumps({"version": 3, "deployment": Store(project.name, chosen).deployment()}, indent=1))


@config_app.callback()
def config_main(context: typer.Context, stack: StackOption = "", cwd: Cwd = HERE) -> None:
    if context.invoked_subcommand is None:
        project, chosen = open_stack(cwd, stack)
        for key, value in sorted(StackFile(project, chosen).shown().items()):
            print(f"{project.short(key)}  {value}")


@config_app.command(name="get")
def config_get(key: str, stack: StackOption = "", cwd: Cwd = HERE, path: PathFlag = False) -> None:
    project, chosen = open_stack(cwd, stack)
    spot = StackFile(project, chosen).get(key, path=path)
    if spot is None:
        raise UserError(f"configuration key '{key}' not found for stack '{chosen}'")
    print(spot if isinstance(spot, str) else json.dumps(spot))


@config_app.command(name="set")
def config_set(
    key: str, value: str = typer.Argument(""), stack: StackOption = "", cwd: Cwd = HERE, path: PathFlag = False,
    secret: Annotated[bool, typer.Option("--secret")] = False,
    plaintext: Annotated[bool, typer.Option("--plaintext")] = False,
) -> None:  # fmt: skip
    project, chosen = open_stack(cwd, stack)
    text = value or sys.stdin.read().rstrip("\n")
    StackFile(project, chosen).set(key, text, secret=secret and not plaintext, path=path)


@config_app.command(name="rm")
def config_rm(key: str, stack: StackOption = "", cwd: Cwd = HERE, path: PathFlag = False) -> None:
    project, chosen = open_stack(cwd, stack)
    StackFile(project, chosen).remove(key, path=path)


def main() -> None:
    # As Go's flags have it.
    sys.argv = ["--no-refresh" if word == "--refresh=false" else word for word in sys.argv]
    try:
        app(prog_name="pulumi")
    except (UserError, WrongPassphrase) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
