"""The fixtures of lesson 14: the learner's tests, and the shops that they are run against."""

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.suite import suite_of
from checks.lesson_14.judge import Judge


@fixture
async def tests(testbed):
    """The tests of the learner: `await tests.other_shops()` runs them against the right ones."""
    yield Judge(testbed, suite_of(testbed))
