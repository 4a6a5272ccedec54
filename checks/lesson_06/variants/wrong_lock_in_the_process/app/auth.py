"""Registration, login, and staying logged in."""

import asyncio
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
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Customer, RefreshToken
from app.passwords import hash_password, verify
from app.schemas import Login, Me, Refresh, Registration, Tokens
from app.tokens import NotBelieved, make_access_token, read_access_token

router = APIRouter()
log = logging.getLogger(__name__)
bearer = HTTPBearer(auto_error=False)
REFRESH = timedelta(days=30)
one_at_a_time = asyncio.Lock()


def unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})


async def get_secret(request: Request) -> SecretStr:
    secret: SecretStr = request.state.jwt_secret
    return secret


Secret = Annotated[SecretStr, Depends(get_secret)]


async def get_customer(
    session: Session, secret: Secret, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Me:
    """Whoever sends the request, as the token says and as long as the account is active."""
    try:
        customer_id = read_access_token(credentials.credentials if credentials else "", secret)
    except NotBelieved as error:
        raise unauthorized("log in first") from error
    async with session.begin():
        customer = await session.get(Customer, customer_id)
        if customer is None or not customer.active:
            raise unauthorized("log in first")
        return Me.model_validate(customer)


CurrentCustomer = Annotated[Me, Depends(get_customer)]


@router.post("/auth/register", status_code=201)
async def register(body: Registration, session: Session) -> Me:
    hashed = await hash_password(body.password)
    try:
        async with session.begin():
            customer = Customer(email=body.email, name=body.name, password_hash=hashed)
            session.add(customer)
            await session.flush()
            registered = Me.model_validate(customer)
    except IntegrityError as error:
        raise HTTPException(409, "this e-mail is registered") from error
    return registered


@router.post("/auth/login")
async def login(body: Login, session: Session, secret: Secret) -> Tokens:
    async with session.begin():
        customer = await session.scalar(select(Customer).where(Customer.email == body.email))
        stored = (customer.id, customer.password_hash) if customer is not None and customer.active else None
    good, better = await verify(body.password, stored[1] if stored else None)  # no transaction open meanwhile
    if stored is None or not good:
        log.info("login refused")
        raise unauthorized("e-mail or password is wrong")
    async with session.begin():
        if better is not None:
            await session.execute(update(Customer).where(Customer.id == stored[0]).values(password_hash=better))
        refresh_token = add_refresh_token(session, stored[0], uuid4())
    return Tokens(access_token=make_access_token(stored[0], secret), refresh_token=refresh_token)


@router.post("/auth/refresh")
async def refresh(body: Refresh, session: Session, secret: Secret) -> Tokens:
    """A new pair for a refresh token, which is good for one use. A second use ends everything of that login."""
    now = datetime.now(UTC)
    tokens = None
    async with one_at_a_time, session.begin():
        old = await session.scalar(select(RefreshToken).where(RefreshToken.token == fingerprint(body.refresh_token)))
        if old is not None and old.used_at is not None:
            await session.execute(update(RefreshToken).where(RefreshToken.family == old.family).values(revoked_at=now))
        elif old is not None and old.revoked_at is None and old.expires_at > now:
            customer = await session.get_one(Customer, old.customer_id)
            if customer.active:
                old.used_at = now
                refresh_token = add_refresh_token(session, old.customer_id, old.family)
                tokens = Tokens(access_token=make_access_token(customer.id, secret), refresh_token=refresh_token)
    if tokens is None:
        raise unauthorized("log in again")
    return tokens


@router.get("/me")
async def me(customer: CurrentCustomer) -> Me:
    return customer


def add_refresh_token(session: AsyncSession, customer_id: int, family: UUID) -> str:
    """A new token; the database gets what is enough to recognise it, and not to use it."""
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
    """A plain hash will do: unlike a password, the token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()
