"""Tokens as an attacker makes them, out of a genuine one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

WORDS = """
    secret changeme password bookshop bookshop-secret Bookshop jwt jwt-secret jwt_secret secret-key secret_key
    supersecret super-secret super-secret-key my-secret my_secret_key mysecret your-secret-key your-256-bit-secret
    key private dev development test testing local admin letmein 123456 qwerty default insecure fastapi postgres
    token hs256 change-me secret123 not-so-secret SECRET
""".split()  # noqa: SIM905
"""What people write into the code until somebody finds a better key."""

DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
NULL = object()
"""In `resigned`: the claim is there, and null."""


def guess_key(token: str) -> str | None:
    """The key of an HS256 token, if it is one of WORDS; offline, as an attacker would."""
    return next((word for word in WORDS if verifies(token, word)), None)


def verifies(token: str, key: str) -> bool:
    """Whether the token says HS256 and was signed so with this key."""
    signed, _, signature = token.rpartition(".")
    return header_of(token).get("alg") == "HS256" and _signature(signed, key, "HS256") == signature


def header_of(token: str) -> dict[str, Any]:
    return _decoded(token.split(".", maxsplit=1)[0])


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, whatever key signed it."""
    return _decoded(token.split(".")[1])


def resigned(token: str, key: str, *, algorithm: str = "HS256", header: object = None, **changed: Any) -> str:
    """The token with other claims, signed with `key`: None takes a claim away, NULL makes it null.

    `header` is what its header says, if that is not the algorithm with which it is signed.
    """
    claims = {name: value for name, value in (claims_of(token) | changed).items() if value is not None}
    claims = {name: None if value is NULL else value for name, value in claims.items()}
    signed = f"{_encoded_json(header or {'alg': algorithm, 'typ': 'JWT'})}.{_encoded_json(claims)}"
    return f"{signed}.{_signature(signed, key, algorithm)}"


def unsigned(token: str, algorithm: str) -> str:
    """The token's claims under another algorithm's name, with an empty signature."""
    return f"{_encoded_json({'alg': algorithm, 'typ': 'JWT'})}.{token.split('.')[1]}."


def own_key_in_the_header(key: str) -> dict[str, Any]:
    """A header that brings the key along."""
    return {"alg": "HS256", "typ": "JWT", "jwk": {"kty": "oct", "k": _encoded(key.encode())}}


def is_jwt(token: str) -> bool:
    try:
        return token.count(".") == 2 and isinstance(claims_of(token), dict)
    except ValueError:
        return False


def _signature(signed: str, key: str, algorithm: str) -> str:
    return _encoded(hmac.digest(key.encode(), signed.encode(), DIGESTS[algorithm]))


def _decoded(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def _encoded_json(value: object) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
