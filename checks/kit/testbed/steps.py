"""What a check did, in order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

HELD = "held on the wire: "
"""How the wire begins the step of a statement that it holds. Different ones in a row become one step."""

UNORDERED_RESPONSES = 6
"""Responses in a row from which on their order says nothing: requests at the same time end in any order."""


MAX_DETAILS = 4
"""Different details of a step that happened several times."""


@dataclass(slots=True)
class Step:
    """Something that a check did `count` times.

    `details` is what somebody needs who wants to repeat it, without repeats. `is_response` marks the response to a
    request, and `endpoint` is the learner's function that made it: `path:line:function`, or empty. `held` counts the
    different statements that this one step stands for.
    """

    text: str
    is_response: bool = False
    endpoint: str = ""
    count: int = 0
    details: list[str] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)

    def again(self, detail: str) -> None:
        """Counts it once more."""
        self.count += 1
        if detail and detail not in self.details:
            self.details.append(detail)

    def hold(self, statement: str) -> None:
        """Counts one more statement that is held."""
        self.held[statement] = self.held.get(statement, 0) + 1
        self.count = sum(self.held.values())

    def __str__(self) -> str:
        if len(self.held) > 1:
            each = [f"{statement}  ×{count}" if count > 1 else statement for statement, count in self.held.items()]
            return "\n".join([f"{HELD}{self.count} statements", *each])
        text = f"{self.text}  ×{self.count}" if self.count > 1 else self.text
        more = ["…"] if len(self.details) > MAX_DETAILS else []
        return "\n".join([text, *self.details[:MAX_DETAILS], *more])


class Steps:
    """Collects steps. The same one again is counted instead of repeated."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def add(self, sentence: str, *, detail: str = "", is_response: bool = False, endpoint: str = "") -> None:
        """Adds a step, or counts it if it equals the last one, or one of many responses in a row before it.

        Statements that are held one after the other are one step.
        """
        is_held = sentence.startswith(HELD)
        if is_held and self._steps and self._steps[-1].held:
            self._steps[-1].hold(sentence.removeprefix(HELD))
            return
        responses = sum(1 for _ in itertools.takewhile(lambda step: step.is_response, reversed(self._steps)))
        comparable = responses if responses >= UNORDERED_RESPONSES else 1
        for step in self._steps[: -comparable - 1 : -1]:
            if step.text == sentence:
                step.again(detail)
                return
        self._steps.append(Step(sentence, is_response, endpoint))
        self._steps[-1].again(detail)
        if is_held:
            self._steps[-1].hold(sentence.removeprefix(HELD))

    def rendered(self) -> list[str]:
        """As text: `GET /books → 200  ×30`, and from the second line on what repeats it, if it needs more."""
        return [str(step) for step in self._steps]

    def endpoint_of(self, happened: str) -> str:
        """The function that made the last response that this sentence names (`POST /orders`).

        Where it names none, the only function that was asked, if nothing happened after its response. Otherwise empty:
        the last response of all would be a guess, and a sentence about a shutdown is about no response.
        """
        known = [step for step in self._steps if step.endpoint]
        if named := [step.endpoint for step in known if step.text.partition(" → ")[0] in happened]:
            return named[-1]
        asked = {step.endpoint for step in known}
        return asked.pop() if len(asked) == 1 and self._steps[-1].endpoint else ""
