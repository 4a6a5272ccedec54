"""Access tokens."""

from datetime import UTC, datetime, timedelta

import jwt

SECRET = "bookshop"
ISSUER = "bookshop"
AUDIENCE = "bookshop-api"
ACCESS = timedelta(minutes=15)


def make_access_token(customer_id: int) -> str:
    now = datetime.now(UTC)
    claims = {"sub": str(customer_id), "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + ACCESS}
    return jwt.encode(claims, SECRET, "HS256")


def read_access_token(token: str) -> int:
    """The customer's id. Raises what PyJWT raises."""
    algorithm = jwt.get_unverified_header(token)["alg"]
    claims = jwt.decode(token, SECRET, algorithms=[algorithm], options={"verify_aud": False})
    return int(claims["sub"])
