"""Pulumi's passphrase secrets provider: the same salts and ciphertexts, so stack files work under both.

Format (pkg/secrets/passphrase, sdk/go/common/resource/config/crypt.go): key = PBKDF2-SHA256 of the
passphrase, 1,000,000 rounds, 8 bytes of salt; a value is `v1:<nonce>:<AES-256-GCM ciphertext>` in base64;
`encryptionsalt` is `v1:<salt>:` plus the encrypted word "pulumi".
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from functools import cache
from hashlib import pbkdf2_hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROUNDS = 1_000_000


class WrongPassphrase(Exception):
    pass


class Crypter:
    def __init__(self, passphrase: str, salt: bytes) -> None:
        self._aead = AESGCM(_key(passphrase, salt))
        self._salt = salt

    @classmethod
    def create(cls, passphrase: str) -> Crypter:
        return cls(passphrase, os.urandom(8))

    @classmethod
    def open(cls, passphrase: str, state: str) -> Crypter:
        """From a stack's `encryptionsalt`. Raises WrongPassphrase."""
        _, salt, check = state.split(":", 2)
        crypter = cls(passphrase, b64decode(salt))
        try:
            crypter.decrypt(check)
        except InvalidTag:
            raise WrongPassphrase("incorrect passphrase") from None
        return crypter

    @property
    def state(self) -> str:
        return f"v1:{b64encode(self._salt).decode()}:{self.encrypt('pulumi')}"

    def encrypt(self, text: str) -> str:
        nonce = os.urandom(12)
        sealed = self._aead.encrypt(nonce, text.encode(), None)
        return f"v1:{b64encode(nonce).decode()}:{b64encode(sealed).decode()}"

    def decrypt(self, text: str) -> str:
        _, nonce, sealed = text.split(":")
        return self._aead.decrypt(b64decode(nonce), b64decode(sealed), None).decode()


@cache
def _key(passphrase: str, salt: bytes) -> bytes:
    return pbkdf2_hmac("sha256", passphrase.encode(), salt, ROUNDS, dklen=32)
