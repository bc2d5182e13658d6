"""Preview, up, refresh and destroy of one stack."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import NoReturn

from simulator.engine import warm
from simulator.engine.deletions import Deletions
from simulator.engine.deployment import Deployment
from simulator.engine.display import Display, is_change
from simulator.engine.monitor import ERROR, Engine, Monitor, serve
from simulator.engine.project import Options, Project, StackFile, UserError
from simulator.engine.providers.command import RUNNING
from simulator.engine.providers.docker_types import DAEMONS
from simulator.engine.refresh import refresh
from simulator.engine.registrations import Registrations
from simulator.engine.state import Store
from simulator.engine.steps import Refused
from simulator.layout import ROOT

TOLD = 32
"""Exit code of a program that has told its user why: nothing is added."""

HEEDS_INTERRUPT = 2.0
"""Seconds in which a program that heeds an interrupt has ended, or has shown that it was interrupted."""


class Operation:
    def __init__(self, project: Project, stack: str, options: Options, *, dry_run: bool) -> None:
        self.project, self.stack, self.options, self.dry_run = project, stack, options, dry_run
        self.display = Display(dry_run=dry_run, diff=options.diff, quiet=options.json)
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False
        self.deployment: Deployment
        self.deletions: Deletions

    def _open(self) -> None:
        store = Store(self.project.name, self.stack)
        file = StackFile(self.project, self.stack)
        crypter = file.crypter()
        resources = store.load(crypter)
        for pending in store.deployment().get("pending_operations") or []:
            name = pending["urn"].rsplit("::", 1)[1]
            self.display.diagnostic(2, "", f"an earlier run was interrupted while {pending['type']} {name}")
        self.deployment = Deployment(store, crypter, resources, self.display, dry_run=self.dry_run)
        self.deletions = Deletions(self.deployment, continue_on_error=self.options.continue_on_error)

    def converge(self) -> int:
        """Preview or up; the exit code."""
        values, secrets = StackFile(self.project, self.stack).values()
        self.project.require_python()
        self._open()
        with self._interruptible(), contextlib.suppress(Refused):
            self._run_program(values, secrets)
        return self._report()

    def _run_program(self, values: dict[str, str], secrets: list[str]) -> None:
        registrations = Registrations(self.deployment, self.deletions, self.project.disabled_providers)
        monitor = Monitor(self.deployment, registrations, self._ended_program)
        server, address = serve(monitor, Engine(self.display.diagnostic))
        arguments = [address, self.project.name, self.stack, str(self.dry_run).lower()]
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(values),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(secrets),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "GRPC_VERBOSITY": "NONE",
        }
        self._process = subprocess.Popen(
            [*warm.argv("simulator.engine.host"), *arguments],
            cwd=self.project.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        ended = threading.Thread(target=self._drain, args=(monitor,), daemon=True)
        ended.start()
        try:
            # While the program imports its packages; its first question waits for the answer.
            self._look_first()
            monitor.state_ready.set()
            monitor.program_done.wait()
            if self._process.poll() is None and not self._interrupted:
                self.deletions.finish()
        finally:
            if not monitor.state_ready.is_set():
                # Pulumi would not have started it yet.
                self._process.terminate()
                monitor.state_ready.set()
            self.deployment.settle()
            monitor.engine_done.set()
            ended.join()
            server.stop(0).wait()

    def _drain(self, monitor: Monitor) -> None:
        """The program's own output; its end is the end even where it never said that it is done."""
        assert self._process
        out, error = self._process.communicate()
        code = self._process.returncode
        for said in filter(None, (out.strip(), error.strip())):
            self.display.log("", said)
        if code not in (0, TOLD) and self.deployment.goes_on():
            said = f"an unhandled error occurred: program exited with non-zero exit code: {code}"
            self.display.diagnostic(ERROR, "", said)
        if code:
            self.deployment.failed = True
        monitor.program_done.set()

    def _end_program(self) -> None:
        """As the language host does where a step has failed or the run was cancelled: whose reason has been shown."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _ended_program(self) -> None:
        """The interrupt comes to the program before the answer that the monitor is shut down, as Pulumi's does; a
        program that waits for that answer gets it all the same."""
        self._end_program()
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(HEEDS_INTERRUPT)

    def destroy(self) -> int:
        self._open()
        with self._interruptible(), contextlib.suppress(Refused):
            self._look_first()
            self.deletions.finish()
        if not self.deployment.failed and not self._interrupted and not self.dry_run:
            self.display.log("", "The resources in the stack have been deleted.")
        return self._report()

    def _look_first(self) -> None:
        if self.project.always_refresh if self.options.refresh is None else self.options.refresh:
            refresh(self.deployment)

    def refresh(self) -> int:
        self._open()
        with self._interruptible(), contextlib.suppress(Refused):
            refresh(self.deployment)
        return self._report()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """First Ctrl-C: end what runs and keep a state from which the next run goes on. Second: end at once, with the
        state as it was saved last, its pending operations in it."""

        def interrupt(*_: object) -> None:
            if self._interrupted:
                self._terminate()
            self._interrupted = True
            self.display.failed("", "update canceled")
            self.deployment.canceled = True
            RUNNING.cancel()
            self._end_program()

        earlier = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            DAEMONS.close()

    def _terminate(self) -> NoReturn:
        RUNNING.cancel(signal.SIGKILL)
        if self._process:
            self._process.kill()
        self.deployment.store.unlock()
        os._exit(255)

    def _report(self) -> int:
        failed = self.deployment.failed or self._interrupted
        changes = [step for step in self.display.steps if is_change(step)]
        outputs_changed = self.deployment.stack_outputs != self.deployment.old_stack_outputs
        if self.options.json:
            print(self.display.as_json(sames=self.options.show_sames))
        elif not failed:
            self.display.vanishing()
            self.display.outputs(self.deployment.old_stack_outputs, self.deployment.stack_outputs)
        self.display.diagnostics_summary()
        self.display.summary()
        if failed:
            return 255 if self._interrupted else 1
        if self.options.expect_no_changes and (changes or outputs_changed):
            raise UserError("no changes were expected but changes were proposed")
        return 0
