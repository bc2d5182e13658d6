"""`./spark sbom`: a bill of materials (CycloneDX) of this environment and of what a stack has put on its Sparks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ops.pulumi import ROOT

LOCKS = ("requirements.txt", "requirements-dev.txt")

Component = dict[str, Any]
"""Of CycloneDX 1.6. Source: cyclonedx.org/docs/1.6/json."""


def bill(components: Iterator[Component] | list[Component]) -> dict[str, Any]:
    """Without a time and a serial number: the same things are the same bill."""
    listed = sorted(components, key=lambda one: str(one["purl"]))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": listed}


def environment() -> Iterator[Component]:
    """Every package that is installed here; with the hashes of the lock, where it is locked at this version."""
    locked = {key: hashes for lock in LOCKS for key, hashes in pinned(ROOT / lock).items()}
    for found in metadata.distributions():
        name, version = normal(found.name), found.version
        made: Component = {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        if licence := found.metadata.json.get("license_expression"):
            made["licenses"] = [{"expression": licence}]
        if hashes := locked.get((name, version)):
            # Of each file that the lock accepts; which one was installed, the installer does not keep.
            made["properties"] = [{"name": "dgx-spark:sha256", "value": one} for one in hashes]
        yield made


def pinned(lock: Path) -> dict[tuple[str, str], list[str]]:
    """(name, version) → sha256 of the files that may be installed."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in lock.read_text().replace("\\\n", " ").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", entry):
            found[normal(match[1]), match[2]] = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
    return found


def normal(name: str) -> str:
    """Source: PyPA's specification of names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def on_sparks(outputs: Mapping[str, Any]) -> Iterator[Component]:
    """Image and model of a stack, by its outputs; nothing before its first `up`."""
    if image := outputs.get("image"):
        digest = str(image).partition(":")[2]
        made = {"type": "container", "name": f"{outputs['engine']}-server", "version": str(image)}
        purl = f"pkg:oci/{outputs['engine']}@{quote(str(image), safe='')}"
        yield {**made, "purl": purl, "hashes": [{"alg": "SHA-256", "content": digest}]}
    if revision := outputs.get("revision"):
        name = str(outputs["model"])
        # A name of the user's own (serving.servedModelName) says nothing of where it comes from.
        purl = f"pkg:{'huggingface' if '/' in name else 'generic'}/{quote(name)}@{revision}"
        yield {"type": "machine-learning-model", "name": name, "version": revision, "purl": purl}
