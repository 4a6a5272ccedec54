"""Registration, login, and staying logged in."""

import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.encoders import jsonable_encoder
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Session
from app.models import Customer, RefreshToken
from app.passwords import hash_password, verify
from app.schemas import Login, Refresh, Registration, Tokens
from app.tokens import make_access_token, read_access_token

router = APIRouter()
log = logging.getLogger(__name__)
REFRESH = timedelta(days=30)


async def get_customer_id(authorization: Annotated[str, Header()] = "") -> int:
    try:
        return read_access_token(authorization.removeprefix("Bearer "))
    except (jwt.InvalidTokenError, jwt.InvalidKeyError) as error:
        raise HTTPException(401, "log in first") from error


CustomerId = Annotated[int, Depends(get_customer_id)]


@router.post("/auth/register", status_code=201)
async def register(body: Registration, session: Session) -> Any:
    log.info("register %s", body)
    try:
        async with session.begin():
            customer = Customer(email=body.email, name=body.name, password_hash=hash_password(body.password))
            session.add(customer)
            await session.flush()
            registered = jsonable_encoder(customer)
    except IntegrityError as error:
        raise HTTPException(409, "this e-mail is registered") from error
    return registered


@router.post("/auth/login")
async def login(body: Login, session: Session) -> Tokens:
    log.info("login %s", body)
    async with session.begin():
        customer = await session.scalar(select(Customer).where(Customer.email == body.email))
        if customer is None:
            raise HTTPException(404, f"no customer {body.email}")
        if not verify(body.password, customer.password_hash):
            raise HTTPException(401, "wrong password")
        refresh_token = add_refresh_token(session, customer.id, uuid4())
        return Tokens(access_token=make_access_token(customer.id), refresh_token=refresh_token)


@router.post("/auth/refresh")
async def refresh(body: Refresh, session: Session) -> Tokens:
    async with session.begin():
        old = await session.scalar(select(RefreshToken).where(RefreshToken.token == body.refresh_token))
        if old is None or old.expires_at < datetime.now(UTC):
            raise HTTPException(401, "log in again")
        old.used_at = datetime.now(UTC)
        refresh_token = add_refresh_token(session, old.customer_id, old.family)
        return Tokens(access_token=make_access_token(old.customer_id), refresh_token=refresh_token)


@router.get("/me")
async def me(customer_id: CustomerId, session: Session) -> Any:
    async with session.begin():
        return jsonable_encoder(await session.get_one(Customer, customer_id))


def add_refresh_token(session: AsyncSession, customer_id: int, family: UUID) -> str:
    token = secrets.token_urlsafe(32)
    session.add(
        RefreshToken(customer_id=customer_id, family=family, token=token, expires_at=datetime.now(UTC) + REFRESH)
    )
    return token
