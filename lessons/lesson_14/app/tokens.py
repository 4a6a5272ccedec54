"""What an access token says, and what it must say to be accepted."""

from datetime import UTC, datetime, timedelta

import jwt
from pydantic import SecretStr

ALGORITHM = "HS256"
ISSUER = "bookshop"
AUDIENCE = "bookshop-api"
ACCESS = timedelta(minutes=15)
LARGEST_ID = 2**63 - 1  # of PostgreSQL's bigint; a larger number would be an error of the database


class InvalidToken(Exception):
    """A token that is forged, out of date, or not for us. The client does not learn which of these."""


def make_access_token(customer_id: int, secret: SecretStr) -> str:
    now = datetime.now(UTC)
    claims = {"sub": str(customer_id), "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + ACCESS}
    return jwt.encode(claims, secret.get_secret_value(), ALGORITHM)


def read_access_token(token: str, secret: SecretStr) -> int:
    """The customer's id. Raises InvalidToken."""
    try:
        claims = jwt.decode(
            token,
            secret.get_secret_value(),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "iss", "aud"]},
        )
        customer_id = int(claims["sub"])
    except (jwt.PyJWTError, ValueError) as error:
        raise InvalidToken from error
    if not 0 < customer_id <= LARGEST_ID:
        raise InvalidToken
    return customer_id
