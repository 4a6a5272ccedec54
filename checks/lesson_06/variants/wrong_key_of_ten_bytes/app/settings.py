"""Settings come from the environment; without them the service does not start."""

from pydantic import Field, PositiveInt, PostgresDsn, SecretStr, ValidationError
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """`database_connections` is what the whole service may open, `web_concurrency` how many workers share it."""

    database_url: PostgresDsn
    jwt_secret: SecretStr = Field(min_length=10)
    database_connections: PositiveInt = 20
    web_concurrency: PositiveInt = 1

    @property
    def pool_size(self) -> int:
        """Connections for one worker."""
        return max(1, self.database_connections // self.web_concurrency)


def load_settings() -> Settings:
    """Reads the settings, or ends the process with one line that names what is wrong."""
    try:
        return Settings()  # type: ignore[call-arg]  # filled from the environment
    except ValidationError as error:
        # names and reasons only: the value that is wrong may hold a password
        problems = "; ".join(f"{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        raise SystemExit(f"The service cannot start. {problems}") from None
