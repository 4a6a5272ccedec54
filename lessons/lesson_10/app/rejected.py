"""A response to a rejected body says what is wrong with it, and never repeats it: it may hold a password."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


def answer_without_the_input(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, rejected)


async def rejected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [{name: one[name] for name in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": problems}, 422)
