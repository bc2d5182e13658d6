"""What the model hub says of a model, asked from the machine that runs Pulumi, before anything is touched.

Only asked when the Sparks hold no intact record of the model (plan/models.py): an unchanged stack needs no hub.
"""

from __future__ import annotations

import requests

from components.facts.hub import File, Model, excluded
from components.problems import Problem, Refused

TIMEOUT = 20
"""Seconds for one answer of the hub."""


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
