"""Runs the Pulumi program in its own process, as pulumi-language-python-exec does.

`python -m simulator.engine.host MONITOR PROJECT STACK DRY_RUN`, in the program's directory; config comes
in PULUMI_CONFIG and PULUMI_CONFIG_SECRET_KEYS. Exit codes: 0 fine, 32 the program's user has been told, 1 other,
a RunError among them, though it was shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
import traceback

import pulumi
import pulumi.runtime
import pulumi_command  # noqa: F401 - the program will want it; imported here while the state is refreshed
import pulumi_docker  # noqa: F401

from simulator.engine.warm import end_with_parent


def main() -> None:
    # An engine that is killed takes its program along.
    end_with_parent(signal.SIGTERM)
    monitor, project, stack, dry_run = sys.argv[1:]
    keys = json.loads(os.environ.get("PULUMI_CONFIG_SECRET_KEYS", "[]"))
    pulumi.runtime.set_all_config(json.loads(os.environ["PULUMI_CONFIG"]), keys)
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=monitor,
            engine=monitor,
            project=project,
            stack=stack,
            parallel=16,
            dry_run=dry_run == "true",
            organization="organization",
            root_directory=os.getcwd(),
        )
    )
    sys.path.insert(0, os.getcwd())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    run = pulumi.runtime.run_in_stack(_program)
    try:
        loop.run_until_complete(run)
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever the program raises is its user's to see
        if "Resource monitor has terminated" in str(error) or _unavailable(error):
            sys.exit(1)
        pulumi.log.error("Program failed with an unhandled exception:\n" + traceback.format_exc())
        sys.exit(32)
    finally:
        sys.stdout.flush()


def _unavailable(error: BaseException) -> bool:
    return "UNAVAILABLE" in repr(error) or "resource monitor shut down" in str(error)


def _program() -> None:
    runpy.run_path(".", run_name="__main__")


if __name__ == "__main__":
    main()
