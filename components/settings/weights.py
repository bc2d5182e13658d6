"""Where weights come from and live."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.settings.words import Cache, Frozen


class Encoding(Frozen):
    """A tokenizer vocabulary that some models need beside their weights."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]+.*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


TIKTOKEN = "https://openaipublic.blob.core.windows.net/encodings"
ENCODINGS = {
    "o200k_base": Encoding(
        url=f"{TIKTOKEN}/o200k_base.tiktoken", sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    ),
    "cl100k_base": Encoding(
        url=f"{TIKTOKEN}/cl100k_base.tiktoken",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
"""Source of the checksums: openai/tiktoken, tiktoken_ext/openai_public.py."""


class Weights(Frozen):
    """Where weights come from and live."""

    cache: Cache = "~/.cache/huggingface"
    """Hugging Face cache directory (HF_HOME) on every Spark; ~ is the SSH user's home."""

    revision: str | None = None
    """Branch, tag or commit. None: main as it was when this model was first deployed."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+.*$")] = "https://huggingface.co"
    """The model hub, or a mirror that speaks its API."""

    encodings: dict[str, Encoding] = ENCODINGS
    """Vocabularies that gpt-oss needs beside its weights (name → url, sha256): for a mirror."""

    stage: tuple[str, ...] = ()
    """Further models to have in place on every Spark, so that a switch to one of them needs no download."""

    offline: bool = False
    """Fetch nothing: the model is in the head's cache already, put there with `hf download` or by hand, and for gpt-oss
    its `encodings` too, which a preview names. The other Sparks copy what they lack, each from the one before it."""

    shared: bool = False
    """The cache is one directory on a filesystem that all Sparks mount: filled by the head, copied nowhere."""

    keep: bool = True
    """Leave the weights on the Sparks when the stack is destroyed, and what engines compiled for them."""
