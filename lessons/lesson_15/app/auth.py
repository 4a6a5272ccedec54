"""Registration, login, and staying logged in."""

import hashlib
import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Customer, RefreshToken
from app.passwords import hash_password, verify
from app.schemas import Login, Me, Refresh, Registration, Tokens
from app.tokens import Identity, InvalidToken, make_access_token, read_access_token

router = APIRouter()
log = logging.getLogger(__name__)
bearer = HTTPBearer(auto_error=False)
REFRESH = timedelta(days=30)


def unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})


async def get_secret(request: Request) -> SecretStr:
    secret: SecretStr = request.state.jwt_secret
    return secret


Secret = Annotated[SecretStr, Depends(get_secret)]


async def get_customer(
    session: Session, secret: Secret, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Me:
    """The customer who sends the request. The token says who that is, the database whether the account is active."""
    try:
        identity = read_access_token(credentials.credentials if credentials else "", secret)
    except InvalidToken as error:
        raise unauthorized("log in first") from error
    async with session.begin():
        customer = await session.get(Customer, identity.customer_id)
        if customer is None or not customer.active:
            raise unauthorized("log in first")
        return Me.model_validate(customer)


CurrentCustomer = Annotated[Me, Depends(get_customer)]


@router.post("/auth/register", status_code=201)
async def register(body: Registration, session: Session) -> Me:
    hashed = await hash_password(body.password)
    async with session.begin():
        customer = Customer(email=body.email, name=body.name, password_hash=hashed)
        session.add(customer)
        await session.flush()
        return Me.model_validate(customer)


@router.post("/auth/login")
async def login(body: Login, session: Session, secret: Secret) -> Tokens:
    async with session.begin():
        # an account from before there was a login has an empty hash: there is nothing to compare a password with
        usable = (Customer.email == body.email, Customer.active, Customer.password_hash != "")
        customer = await session.scalar(select(Customer).where(*usable))
        stored = (customer.id, customer.password_hash) if customer is not None else None
    good, better = await verify(body.password, stored[1] if stored else None)  # no transaction is open meanwhile
    if stored is None or not good:
        log.info("login refused")
        raise unauthorized("e-mail or password is wrong")
    async with session.begin():
        same = (Customer.id == stored[0], Customer.active)
        customer = await session.scalar(select(Customer).where(*same).with_for_update(key_share=True))
        if customer is None:  # the account was deactivated since it was read
            raise unauthorized("e-mail or password is wrong")
        if better is not None and customer.password_hash == stored[1]:  # another login may have replaced it meanwhile
            customer.password_hash = better
        refresh_token = add_refresh_token(session, customer.id, uuid4())
        identity = Identity(customer.id, customer.shop_id)
    return Tokens(access_token=make_access_token(identity, secret), refresh_token=refresh_token)


@router.post("/auth/refresh")
async def refresh(body: Refresh, session: Session, secret: Secret) -> Tokens:
    """A new pair for a refresh token, which is good for one use. A second use revokes all tokens of that login."""
    now = datetime.now(UTC)
    tokens = None
    this = RefreshToken.token == fingerprint(body.refresh_token)
    async with session.begin():
        # One refresh at a time for each customer. A lock on the token alone is not enough: while the second token is
        # exchanged, a second use of the first one could not revoke the third one, which is not committed yet.
        owner = select(RefreshToken.customer_id).where(this).scalar_subquery()
        customer = await session.scalar(select(Customer).where(Customer.id == owner).with_for_update(key_share=True))
        old = await session.scalar(select(RefreshToken).where(this))  # a new statement sees what is committed by now
        if customer is not None and old is not None:
            if old.used_at is not None:
                family = RefreshToken.family == old.family
                await session.execute(update(RefreshToken).where(family).values(revoked_at=now))
            elif customer.active and old.revoked_at is None and old.expires_at > now:
                old.used_at = now
                refresh_token = add_refresh_token(session, customer.id, old.family)
                identity = Identity(customer.id, customer.shop_id)
                tokens = Tokens(access_token=make_access_token(identity, secret), refresh_token=refresh_token)
    if tokens is None:  # raised after the block, whose end commits the revocation
        raise unauthorized("log in again")
    return tokens


@router.get("/me")
async def me(customer: CurrentCustomer) -> Me:
    return customer


def add_refresh_token(session: AsyncSession, customer_id: int, family: UUID) -> str:
    """A new token. The database gets its fingerprint: enough to recognize the token, and useless to log in with."""
    token = secrets.token_urlsafe(32)
    session.add(
        RefreshToken(
            customer_id=customer_id,
            family=family,
            token=fingerprint(token),
            expires_at=datetime.now(UTC) + REFRESH,
        )
    )
    return token


def fingerprint(token: str) -> str:
    """A fast hash without a salt is enough: unlike a password, the token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()
