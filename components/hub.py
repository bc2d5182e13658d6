"""What the model hub says of a model, asked from the machine that runs Pulumi, before anything is touched.

Only asked when the Sparks hold no intact record of the model (facts.py): an unchanged stack needs no hub.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from components.problems import Problem, Refused

TIMEOUT = 20
"""Seconds for one answer of the hub."""

SECOND_COPIES = ("original/*", "metal/*", "consolidated*", "*.pth", "*.gguf")
"""Files that repeat the weights in another format; nothing loads them. openai/gpt-oss-120b alone would
be 196 GB instead of 65. Source: listings of the repositories, facts.md C and G3."""


@dataclass(frozen=True)
class File:
    """One file of a repository at a commit."""

    path: str
    size: int
    """Bytes."""

    sha256: str | None
    """Of files in large-file storage; None for small ones, which git names by another hash."""


@dataclass(frozen=True)
class Model:
    """A model at one commit."""

    repo: str
    commit: str
    files: tuple[File, ...]
    """Only what is downloaded (see SECOND_COPIES)."""

    config: dict[str, Any]
    """Its config.json: geometry, by the names of the transformers library."""

    path: str = ""
    """Of a model that is no repository: its directory, the same on every Spark; `repo` is that too, then."""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def excluded(path: str, patterns: Sequence[str] = SECOND_COPIES) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def look_up(endpoint: str, repo: str, revision: str | None, token: str) -> Model:
    """The model at `revision` (None: main).

    Raises Refused where it does not exist, is gated for this token, or the hub does not answer.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    about = _get(f"{endpoint}/api/models/{repo}/revision/{revision or 'main'}?blobs=true", headers, repo, token)
    details = about.json()
    commit = details["sha"]
    files = [
        File(sibling["rfilename"], sibling["size"], (sibling.get("lfs") or {}).get("sha256"))
        for sibling in details["siblings"]
        if not excluded(sibling["rfilename"])
    ]
    # The listing of a gated model is public, its files are not: this also proves access.
    config = _get(f"{endpoint}/{repo}/resolve/{commit}/config.json", headers, repo, token)
    return Model(repo, commit, tuple(sorted(files, key=lambda file: file.path)), config.json())


def _get(url: str, headers: dict[str, str], repo: str, token: str) -> requests.Response:
    try:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise Refused(
            [Problem("weights.endpoint", f"the model hub does not answer: {_short(error)}", "check the network")]
        ) from None
    code = answer.headers.get("X-Error-Code", "")
    if answer.ok:
        return answer
    if code == "GatedRepo" or (code != "RepoNotFound" and answer.status_code == 403):
        raise Refused([_gated(repo, token)])
    if code == "RevisionNotFound":
        raise Refused([Problem("weights.revision", f"{repo} has no such revision", "a branch, tag or commit of it")])
    if code == "EntryNotFound":
        raise Refused(
            [Problem("model", f"{repo} has no config.json: not a model that the engines load", "another one")]
        )
    if answer.status_code in (401, 404):
        hint = "a private one needs hfToken" if not token else "or hfToken may not see it"
        raise Refused([Problem("model", f"{repo} does not exist on the hub ({hint})", "check the spelling: ORG/NAME")])
    raise Refused([Problem("weights.endpoint", f"the hub answers {answer.status_code} for {url}", "try again later")])


def _gated(repo: str, token: str) -> Problem:
    if not token:
        return Problem(
            "hfToken",
            f"{repo} is gated and no token is set",
            f"accept the licence on the page of {repo}, then pulumi config set --secret hfToken hf_…",
        )
    return Problem(
        "hfToken", f"this token has no access to {repo}", "accept the licence on its page with the token's account"
    )


def _short(error: Exception) -> str:
    return str(error).split("(Caused by")[0].strip()[:200]
