"""sudo on the Sparks, where it wants a password: asked for once on this terminal, handed over by stdin.

The password is in no command line, environment or log, and forgotten when this program ends.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ops.pulumi import CommandError

TRIES = 3
"""As many as sudo itself gives."""

Answer = TypeVar("Answer")


class Sudo:
    """`why`: the command of ours that needs root."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._typed: dict[str, str] = {}

    def run(
        self,
        users: Mapping[str, str],
        attempt: Callable[[str, str | None], Answer],
        refused: Callable[[Answer], bool],
    ) -> dict[str, Answer]:
        """Spark → its answer, from all at once.

        users     Spark → the account there
        attempt   runs it on this Spark, with this password; None: without one
        refused   does this answer say that sudo wants a password, or another one?
        Raises CommandError where nobody can be asked.
        """

        def every(names: Sequence[str]) -> dict[str, Answer]:
            with ThreadPoolExecutor(max(1, len(names))) as pool:
                found = pool.map(lambda name: attempt(name, self._typed.get(name)), names)
                return dict(zip(names, found, strict=True))

        answers = every(list(users))
        for _ in range(TRIES):
            wanting = [name for name, answer in answers.items() if refused(answer)]
            if not wanting:
                break
            again = [name for name in wanting if name in self._typed]
            password = self._ask({name: users[name] for name in again or wanting})
            self._typed |= dict.fromkeys(again or wanting, password)
            answers |= every(again or wanting)
        return answers

    def _ask(self, users: Mapping[str, str]) -> str:
        where = ", ".join(f"{user}@{name}" for name, user in users.items())
        if not os.isatty(0):
            line = f"echo '{next(iter(users.values()))} ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/dgx-spark"
            raise CommandError(
                f"{self._why} needs sudo on the Sparks, which wants the password of {where}, and there is no terminal "
                f"to ask on\n  → run it in a terminal, or on each Spark once: {line}"
            )
        wrong = "not taken; " if set(users) <= set(self._typed) else ""
        return getpass.getpass(f"{wrong}sudo password of {where}: ")
