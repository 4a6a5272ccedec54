"""Passwords are hashed with Argon2id, in threads: one hash takes as long as many requests."""

import asyncio
import hashlib
import hmac
import os
import re
from concurrent.futures import ThreadPoolExecutor

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

hasher = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))  # as OWASP asks for
NOBODYS = hasher.hash("a password that nobody has")

# Threads of their own: in asyncio's, a wave of logins would delay everything else that needs one, such as the look-up
# of a host name. Their number also limits the memory, which is 19 MiB for each hash that is being computed.
threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="password")


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(threads, hasher.hash, password)


async def verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Whether the password is right, and a new hash to store if the stored one is out of date.

    `stored` is None if there is no account to log in to. Refusing a password takes the same work in each case: without
    an account, with an old hash and with a new one.
    """
    return await asyncio.get_running_loop().run_in_executor(threads, _verify, password, stored)


def _verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    if stored is not None and not is_old(stored):
        return hasher.verify_and_update(password, stored)
    hasher.verify(password, NOBODYS)
    if stored is None or not hmac.compare_digest(hashlib.sha256(password.encode()).hexdigest(), stored):
        return False, None
    return True, hasher.hash(password)


def is_old(stored: str) -> bool:
    """The first version of the shop stored an unsalted SHA-256."""
    return re.fullmatch("[0-9a-f]{64}", stored) is not None
