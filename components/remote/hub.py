"""What the model hub says of a model, asked from the machine that runs Pulumi, before anything is touched.

Only asked when the Sparks hold no intact record of the model (plan/models.py): an unchanged stack needs no hub, and
does not import its client either.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, errors
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from components.facts.hub import File, Model, loaded, selected, unusable
from components.problems import Problem, Refused

TransportError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined] # in no list of exports
"""No answer at all, by whichever HTTP library the client is built on."""

STRANGE = (FileMetadataError, ValueError, KeyError, TypeError)
"""What the client raises at an answer that is no model hub's: a login page in place of JSON, JSON of another shape."""

TIMEOUT = 20
"""Seconds for one answer of the hub."""

ANOTHER = "name one that the engine lists as supported; ./spark models shows those that are known to run"


def look_up(endpoint: str, repo: str, revision: str | None, token: str) -> Model:
    """The model at `revision` (None: main).

    Raises Refused where it does not exist, is gated for this token or has no weights that an engine loads, or where
    the hub does not answer.
    """
    # False: never the token that somebody has logged in with on this machine.
    api = HfApi(endpoint=endpoint, token=token or False)
    with _explained(repo, token):
        about = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    every = [
        File(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in about.siblings or ()
    ]
    if about.sha is None or about.siblings is None:
        raise Refused([_strange()])
    if why := unusable(every):
        raise Refused([Problem("model", f"{repo} {why}", ANOTHER)])
    with _explained(repo, token):
        # The listing of a gated model is public, its files are not: this also proves access.
        text = _config(api, repo, about.sha)
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise Refused([Problem("model", f"the config.json of {repo} is no JSON object", ANOTHER)])
    parameters = about.safetensors.parameters if about.safetensors else {}
    return Model(repo, about.sha, selected(every), config, loaded=loaded(parameters, every))


def _config(api: HfApi, repo: str, commit: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo, "config.json", revision=commit, local_dir=folder, etag_timeout=TIMEOUT)
        return Path(path).read_text(errors="replace")


@contextmanager
def _explained(repo: str, token: str) -> Iterator[None]:
    """The client's errors as what the user can do; none of their texts, which may quote the request's headers."""
    try:
        yield
    except GatedRepoError:
        raise Refused([_gated(repo, token)]) from None
    except RepositoryNotFoundError:
        hint = "or hfToken may not see it" if token else "a private one needs hfToken"
        raise Refused(
            [Problem("model", f"{repo} does not exist on the hub ({hint})", "check the spelling: ORG/NAME")]
        ) from None
    except RevisionNotFoundError:
        raise Refused(
            [Problem("weights.revision", f"{repo} has no such revision", "name a branch, tag or commit of it")]
        ) from None
    except LocalEntryNotFoundError:
        raise Refused([_silent("the connection broke")]) from None
    except EntryNotFoundError:
        raise Refused(
            [Problem("model", f"{repo} has no config.json: not a model that the engines load", ANOTHER)]
        ) from None
    except HFValidationError:
        raise Refused([Problem("model", f"{repo} is no name of a repository", "write it as ORG/NAME")]) from None
    except OfflineModeIsEnabled:
        raise Refused([_silent("HF_HUB_OFFLINE is set on this machine")]) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise Refused([_silent(f"it answers {status}")]) from None
    except TransportError as error:
        raise Refused([_silent(type(error).__name__)]) from None
    except STRANGE:
        raise Refused([_strange()]) from None


def _strange() -> Problem:
    return Problem(
        "weights.endpoint",
        "what answers in the model hub's place is no model hub: a network's login page, or a proxy",
        "log in to the network with a browser, or correct weights.endpoint",
    )


def _silent(why: str) -> Problem:
    fix = "check the network and weights.endpoint, or go without it: pulumi config set --path weights.offline true"
    return Problem("weights.endpoint", f"the model hub does not answer: {why}", fix)


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
