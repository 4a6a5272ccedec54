"""Exceptions for what the shop refuses. A worker or a command catches them; the web server makes responses of them."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app.problems import problem


class Refusal(Exception):
    """What was asked for is not possible. The transaction must be rolled back. The message is for the client."""


class NotFound(Refusal):
    """What was asked for is not there."""


def answer_refusals(app: FastAPI) -> None:
    app.add_exception_handler(Refusal, refused)


async def refused(request: Request, error: Exception) -> JSONResponse:
    return problem(404 if isinstance(error, NotFound) else 409, str(error))
