"""What an access token says, and what it must say to be accepted."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from pydantic import SecretStr

ALGORITHM = "HS256"
ISSUER = "bookshop"
AUDIENCE = "bookshop-api"
ACCESS = timedelta(minutes=15)
LARGEST_ID = 2**63 - 1  # of PostgreSQL's bigint; a larger number would be an error of the database


@dataclass(frozen=True, slots=True)
class Identity:
    """A customer, and the shop in which the customer has the account."""

    customer_id: int
    shop_id: int


class InvalidToken(Exception):
    """A token that is forged, out of date, or not for us. The client does not learn which of these."""


def make_access_token(identity: Identity, secret: SecretStr) -> str:
    now = datetime.now(UTC)
    who = {"sub": str(identity.customer_id), "shop": identity.shop_id}
    claims = {**who, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + ACCESS}
    return jwt.encode(claims, secret.get_secret_value(), ALGORITHM)


def read_access_token(token: str, secret: SecretStr) -> Identity:
    """The customer and the shop for which the token was made. Raises InvalidToken."""
    try:
        claims = jwt.decode(
            token,
            secret.get_secret_value(),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "shop", "iss", "aud"]},
        )
        identity = Identity(int(claims["sub"]), int(claims["shop"]))
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise InvalidToken from error
    if not (0 < identity.customer_id <= LARGEST_ID and 0 < identity.shop_id <= LARGEST_ID):
        raise InvalidToken
    return identity
