"""Settings come from the environment; without them the service does not start."""

from pydantic import PostgresDsn, ValidationError
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    database_url: PostgresDsn


def load_settings() -> Settings:
    """Reads the settings, or ends the process with one line that names what is wrong."""
    try:
        return Settings()  # type: ignore[call-arg]  # filled from the environment
    except ValidationError as error:
        # names and reasons only: the value that is wrong may hold a password
        problems = "; ".join(
            f"{str(item['loc'][0]).upper()}: {item['msg']} (got {item['input']!r})" for item in error.errors()
        )
        raise SystemExit(f"The service cannot start. {problems}") from None
