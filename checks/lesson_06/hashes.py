"""Password hashes, as they are stored and as they leak."""

from __future__ import annotations

import re

OWASP = ((47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5))
"""Memory in KiB and passes of Argon2id that its Password Storage Cheat Sheet rates as equivalent, with one lane."""

ARGON2ID = re.compile(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
LEAKED = re.compile(r"\$argon2i?d?\$[^\s'\"]*\$[A-Za-z0-9+/]{16,}")
"""A whole hash of Argon2, wherever it is found."""


def weakness(hashed: str) -> str:
    """What is wrong with a stored hash; empty if nothing is."""
    match = ARGON2ID.fullmatch(hashed)
    if not match:
        return f"{shortened(hashed)} is not an Argon2id hash"
    memory, passes, _ = (int(number) for number in match.groups()[:3])
    salt, tag = (len(part) * 3 // 4 for part in match.groups()[3:])
    if not any(memory >= least and passes >= times for least, times in OWASP):
        return f"m={memory}, t={passes} is less than m=19456, t=2, and than each setting that OWASP rates as equivalent"
    return f"the salt has {salt} bytes and the hash {tag}; both need 16" if salt < 16 or tag < 16 else ""


def shortened(hashed: str) -> str:
    return f"{hashed[:34]}…" if len(hashed) > 34 else hashed or "(empty)"
