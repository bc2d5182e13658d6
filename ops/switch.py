"""`./spark switch` and `./spark rollback`: to another model or stack, and back when the new one does not serve.

What Pulumi does is all that is done: a preview, an `up`, and another `up` of what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from components.programs.readiness import FORMER, SERVED
from ops.project import Confirm, Project, short, text
from ops.pulumi import CommandError

console = Console(highlight=False, soft_wrap=True)


def show(where: Project) -> None:
    for stack, current in where.stacks().items():
        mark = "*" if current else " "
        chosen = where.config(stack, "model") or "gpt-oss-120b"
        console.print(f"{mark} {stack}: {chosen} on {where.config(stack, 'engine') or 'vllm'}")
    console.print("Models: ./spark models")


def switch(where: Project, target: str, stack: str | None, confirm: Confirm, *, stage_only: bool = False) -> None:
    """To a stack of that name, else to that model within the stack. Raises CommandError where it did not work.

    stage_only   put the model's weights in place and change nothing else
    """
    if stage_only:
        _stage(where, where.chosen(stack), target, confirm)
    elif target in where.stacks():
        _to_stack(where, target, where.chosen(stack), confirm)
    else:
        chosen = where.chosen(stack)
        former = str(where.config(chosen, "model") or "the former model")
        _reconfigure(where, chosen, lambda: where.run("config", "set", "model", target, "--stack", chosen), target,
                     former, confirm)  # fmt: skip


@contextmanager
def _as_it_was(file: Path) -> Iterator[Callable[[], None]]:
    """A stack's file with its changes, but as it was before unless they are kept: Ctrl-C at the question included."""
    before, kept = text(file), []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            file.write_text(before)


@contextmanager
def _told(where_it_is: str) -> Iterator[None]:
    """Ctrl-C here is not a refusal of the new one, which may serve already: nothing is put back unasked."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(f"interrupted: {where_it_is}") from None


def _stage(where: Project, stack: str, model: str, confirm: Confirm) -> None:
    if model in where.stacks():
        raise CommandError(f"{model} is a stack; name a model (./spark models)")
    number = len((where.config(stack, "weights") or {}).get("stage", []))
    with _as_it_was(where.file(stack)) as keep:
        if where.run("config", "set", "--path", f"weights.stage[{number}]", model, "--stack", stack):
            raise CommandError(_not_staged(model, "see above"))
        try:
            changed = where.changes(stack)
        except CommandError as error:
            raise CommandError(_not_staged(model, str(error))) from None
        other = [name for name in changed if "-staged-" not in name]
        if other:
            why = f"the stack has other changes waiting ({', '.join(other)}): `pulumi up` first"
            raise CommandError(_not_staged(model, why))
        if not changed:
            console.print(f"[bold]·[/bold] {model} is in place already")
            return
        if not confirm(f"Stage {model} ({', '.join(changed)})?"):
            return
        if not where.up(stack):
            raise CommandError(_not_staged(model, "see above; what has arrived is kept"))
        keep()
    console.print(f"[bold]·[/bold] {model} is in place: ./spark switch {model}")


def _not_staged(model: str, why: str) -> str:
    return f"{model} can't be staged: {why}; nothing was changed"


def rollback(where: Project, stack: str | None, confirm: Confirm) -> None:
    """To the last configuration that served; when that is the present one, to the one before it."""
    chosen = where.chosen(stack)
    present = text(where.file(chosen))
    kept = [where.folder / folder / f"{short(chosen)}.yaml" for folder in (SERVED, FORMER)]
    former = next((path.read_text() for path in kept if path.exists() and path.read_text() != present), None)
    if former is None:
        raise CommandError(f"no other configuration of {chosen} has served from this folder")

    def change() -> int:
        where.file(chosen).write_text(former)
        return 0

    _reconfigure(where, chosen, change, "the configuration that served before", "the present one", confirm)


def _reconfigure(
    where: Project, stack: str, change: Callable[[], int], target: str, former: str, confirm: Confirm
) -> None:
    """Preview, then `up`; the stack's file as it was, and `up` again, where that fails."""
    before = text(where.file(stack))
    with _as_it_was(where.file(stack)) as keep:
        if change() or where.run("preview", "--stack", stack):
            raise CommandError(f"{target} can't be served (see above); nothing was changed")
        if not confirm(f"Switch {stack} to {target}?"):
            return
        keep()
    with _told(f"{stack} is on its way to {target}: `pulumi up` goes on, ./spark rollback returns to what served"):
        served = where.up(stack)
    if served:
        console.print(f"[bold]·[/bold] {stack} serves {target}")
        return
    console.print(f"[bold]·[/bold] {target} did not get ready: putting {former} back")
    where.file(stack).write_text(before)
    if not where.up(stack):
        raise CommandError(f"{target} did not get ready, and {former} did not come back: see above, then `pulumi up`")
    raise CommandError(f"{target} did not get ready (why is above); {former} serves again")


def _to_stack(where: Project, target: str, former: str, confirm: Confirm) -> None:
    """Stacks on the same Sparks take turns: each may take them over."""
    with _as_it_was(where.file(target)) as keep:
        if where.run("config", "set", "takeover", "true", "--stack", target):
            raise CommandError(f"{where.file(target).name} can't be changed")
        if where.run("preview", "--stack", target):
            raise CommandError(f"{target} can't be brought up (see above); nothing was changed")
        if not confirm(f"Switch from {former} to {target}?"):
            return
        keep()
    with _told(f"{target} is on its way: ./spark switch {target} goes on, ./spark switch {former} returns"):
        served = where.up(target)
    if served:
        where.run("stack", "select", target)
        console.print(f"[bold]·[/bold] {target} serves")
        return
    if former == target:
        raise CommandError(f"{target} did not get ready: see above")
    console.print(f"[bold]·[/bold] {target} did not get ready: bringing {former} back")
    where.run("config", "set", "takeover", "true", "--stack", former)
    if not where.up(former):
        raise CommandError(f"{target} did not get ready, and {former} did not come back: see above, then `pulumi up`")
    raise CommandError(f"{target} did not get ready (why is above); {former} serves again")
