"""pytest as a warm grader runs it, with plugins that are imported already.

    python -m checks.kit.grading checks/lesson_00

Named with -p, as elsewhere, each would first be looked for among the entry points of all that is installed.
"""

import sys

import pytest
import pytest_asyncio.plugin

import checks.kit.grading.plugin

sys.exit(pytest.main(sys.argv[1:], plugins=[pytest_asyncio.plugin, checks.kit.grading.plugin]))
