"""A placeholder."""

from checks.kit.report import expect


async def test_placeholder(app):
    """`GET /health` returns status 200."""
    response = await app.get("/health")
    expect(response.status == 200, f"{response}", because="Nobody can buy.", section="See it break")
