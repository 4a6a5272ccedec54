"""What only lesson 07 needs: a payment provider."""

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import outside_service


@fixture
async def provider(testbed):
    """The payment provider: `provider.respond(status=402)`, `provider.hold()`; `provider.calls` is what it was asked.

    Apps wait a minute for it, so that a call that a check holds does not time out; `launch(env=IMPATIENT)` changes it.
    """
    testbed.env["PAYMENT_TIMEOUT"] = "60"
    async with outside_service(testbed, env="PAYMENT_URL") as provider:
        yield provider
