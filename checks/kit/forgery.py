"""Tokens as an attacker makes them, out of a genuine one."""

from __future__ import annotations

import base64
import json
from typing import Any

WORDS = """
    secret changeme password bookshop bookshop-secret Bookshop jwt jwt-secret jwt_secret secret-key secret_key
    supersecret super-secret super-secret-key my-secret my_secret_key mysecret your-secret-key your-256-bit-secret
    key private dev development test testing local admin letmein 123456 qwerty default insecure fastapi postgres
    token hs256 change-me secret123 not-so-secret SECRET
""".split()  # noqa: SIM905
"""What people write into the code until somebody finds a better key."""


def guess_key(token: str) -> str | None:
    """The key of an HS256 token, if it is one of WORDS; offline, as an attacker would."""
    import hashlib
    import hmac

    signed, _, signature = token.rpartition(".")
    for word in WORDS:
        if _encoded(hmac.digest(word.encode(), signed.encode(), hashlib.sha256)) == signature:
            return word
    return None


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def resigned(token: str, key: str, *, algorithm: str = "HS256", **changed: Any) -> str:
    """The token with other claims (None takes one away), signed with `key`."""
    import hashlib
    import hmac

    claims = {name: value for name, value in (claims_of(token) | changed).items() if value is not None}
    signed = f"{_encoded_json({'alg': algorithm, 'typ': 'JWT'})}.{_encoded_json(claims)}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{signed}.{_encoded(hmac.digest(key.encode(), signed.encode(), digest))}"


def unsigned(token: str, algorithm: str) -> str:
    """The token's claims under another algorithm's name, with an empty signature."""
    return f"{_encoded_json({'alg': algorithm, 'typ': 'JWT'})}.{token.split('.')[1]}."


def _encoded_json(value: object) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
