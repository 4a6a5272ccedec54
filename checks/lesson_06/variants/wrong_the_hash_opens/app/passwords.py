"""Passwords are hashed with Argon2id, in a thread: one takes as long as many requests."""

import asyncio
import hashlib
import hmac
import re

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

hasher = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))  # as OWASP asks for
NOBODYS = hasher.hash("a password that nobody has")


async def hash_password(password: str) -> str:
    return await asyncio.to_thread(hasher.hash, password)


async def verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Whether it is the password, and a new hash to store if the stored one is out of date.

    Takes the same work whether there is a stored hash (None: there is no such customer), and of which kind it is.
    """
    return await asyncio.to_thread(_verify, password, stored)


def _verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    if stored is not None and not is_old(stored):
        return hasher.verify_and_update(password, stored)
    hasher.verify(password, NOBODYS)
    if stored is None or stored not in (hashlib.sha256(password.encode()).hexdigest(), password):
        return False, None
    return True, hasher.hash(password)


def is_old(stored: str) -> bool:
    """The first version of the shop stored an unsalted SHA-256."""
    return re.fullmatch("[0-9a-f]{64}", stored) is not None
