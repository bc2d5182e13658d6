"""Lock files as pip and uv read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
ENDS = ("", "-dev", "-uv", "-bench", "-real", "-sglang", "-litellm", "-open-webui", "-simulator")
NAMES = tuple(f"requirements{end}.txt" for end in ENDS)


@dataclass(frozen=True)
class Pin:
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def applies(self) -> bool:
        """To the Python that runs this."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read(text: str) -> Iterator[Pin]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = re.split(r"\s+--hash=", entry.strip())
            yield Pin(Requirement(requirement), tuple(hashes))


def unmet(pins: list[Pin], asked: dict[str, list[str]]) -> list[str]:
    """What pip would refuse under --require-hashes: a dependency that is no pin, or none with these extras.

    `asked`: package → its requirements, as its own metadata has them.
    """
    found = []
    pinned = {pin.name: pin.requirement for pin in pins if pin.applies}
    for name, requirement in pinned.items():
        for text in asked.get(name, []):
            need = Requirement(text)
            extras = requirement.extras or {""}
            if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            pin = pinned.get(canonicalize_name(need.name))
            if pin is None or not need.extras <= pin.extras:
                found.append(f"{name} needs {need}")
    return found
