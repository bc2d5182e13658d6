"""Why a Spark could not be asked: remote/ask.py tells it, and facts/spark.py says what can be done."""

from __future__ import annotations

from enum import Enum


class Failure(str, Enum):
    HOST_KEY = "host key"
    """It shows another one than the pinned one."""

    LOGIN = "login"
    """It lets nobody in with this account and key."""

    NAME = "name"
    """Its name can't be resolved."""

    UNREACHABLE = "unreachable"
    NO_SSH = "no ssh"
    """There is no program `ssh` on this machine."""

    PYTHON = "python"
    """It has no python3."""

    SLOW = "slow"
    SUDO = "sudo"
    """sudo wants a password, or does not let this account do it."""

    ANSWER = "answer"
    """What came back is not what was asked for."""

    OTHER = "other"
