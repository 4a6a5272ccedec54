"""What the checks and the notebook of lesson 06 compute: bits of tokens, the work of a login, versions that can run."""

from __future__ import annotations

import random

import pytest

from checks.lesson_06.scenes import available
from checks.lesson_06.test_3_refresh_tokens import varying_bits
from checks.lesson_06.work import Work

HEXADECIMAL, DIGITS = "0123456789abcdef", "0123456789"


@pytest.mark.parametrize(
    ("alphabet", "length", "enough"), [(HEXADECIMAL, 16, False), (HEXADECIMAL, 22, True), (DIGITS, 22, True)]
)
def test_64_random_bits_are_told_from_those_of_22_characters(alphabet: str, length: int, enough: bool) -> None:
    for seed in range(100):
        chance = random.Random(seed)
        tokens = ["refresh-" + "".join(chance.choices(alphabet, k=length)) for _ in range(16)]
        assert (varying_bits(tokens) >= 64) is enough


def test_what_many_logins_cost_is_not_said_of_one() -> None:
    many = Work(4, True, 0.16, 0.15, {"an unknown e-mail": 0.01})
    assert str(many) == "4 logins at once took 160 ms of processor time, and 4 refusals of a wrong password 150 ms."
    assert many.listed(many.less) == "an unknown e-mail (10 ms for 4)"
    one = Work(1, False, 0.04, 0.03, {"an unknown e-mail": 0.005})
    assert str(one) == "A login took 40 ms, and refusing a wrong password 30 ms."
    assert one.listed(one.less) == "an unknown e-mail (5 ms)"


def test_a_version_that_is_not_there_is_left_out_of_the_notebook() -> None:
    assert available("lessons", "wrong_no_such_variant") == ["lessons"]
