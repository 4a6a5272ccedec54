"""A PostgreSQL of our own in a container, through testcontainers."""

from __future__ import annotations

import contextlib
import secrets
from urllib.parse import quote

from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.source import Source, from_url

IMAGE = "postgres:18"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")
"""The container and its data go when the run is over, so nothing has to survive a power cut."""


def start_container() -> Source:
    """Starts a container and waits until it accepts connections; it is removed when the run lets it go."""
    from dataclasses import replace

    from docker.errors import DockerException  # type: ignore[import-untyped]
    from testcontainers.community.postgres import PostgresContainer

    password = secrets.token_urlsafe(12)
    try:
        container = PostgresContainer(IMAGE, username="bookshop", password=password, dbname="bookshop", driver=None)
    except DockerException as error:
        raise PostgresUnavailable(
            f"WORKBOOK_POSTGRES=docker, but no Docker engine responds ({error}). Start Docker, or unset "
            "WORKBOOK_POSTGRES to use the embedded PostgreSQL."
        ) from None
    container.with_command(["postgres", *(part for setting in FAST for part in ("-c", setting))])
    try:
        container.start()
    except Exception as error:  # of docker, of requests, of testcontainers
        with contextlib.suppress(Exception):
            container.stop()
        raise PostgresUnavailable(
            f"A container from {IMAGE} did not start: {error}. Try it by hand: docker run --rm {IMAGE}"
        ) from None
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(5432)
        url = f"postgresql://bookshop:{quote(password, safe='')}@{host}:{port}/bookshop?sslmode=disable"
        source = from_url(url, f"a container from {IMAGE}", "Look with: docker ps -a")
    except BaseException:
        container.stop()
        raise
    return replace(source, release=container.stop)
