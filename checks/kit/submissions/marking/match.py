"""Finds whose submission it is: platforms put names, numbers and logins into the names of files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from checks.kit.submissions.marking.roster import IDENTIFYING, Person, Roster, words
from checks.kit.submissions.model import Submission

MOODLE = re.compile(r"_\d+_assignsubmission_.*$", re.DOTALL)
"""What Moodle adds to the name of a person: `Anna Right_12345_assignsubmission_file_`."""

CANVAS = re.compile(r"^[^_]+(?:_LATE)?_(\d+)_\d+_", re.IGNORECASE)
"""How Canvas names a file: `rightanna_LATE_77_88_lessons`; the first number is that of the person."""

PACKED = re.compile(r"-\d{8}-\d{4}(?:-\d+)?$")
"""What `workbook submit` adds to a name: `anna-right-20261127-2305`."""

SAME_NAME = re.compile(r" \([^()]*\)$")
"""What the grader adds to a name that is there twice."""

NUMBERED = re.compile(r"(?=.*\d).{4,}")
"""A login or number that is looked for within a name; a word, or a shorter one, could be there by chance."""


@dataclass(slots=True)
class Matches:
    """Who handed in what. `of_person` has a submission's index for each person on the roster who handed something in.

    `remarks` are sentences for the instructor, by the submission's index. `unknown` are those who are not on the
    roster, and `earlier` those of which the same person handed in a later one.
    """

    of_person: dict[int, int] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    earlier: list[int] = field(default_factory=list)
    remarks: dict[int, str] = field(default_factory=dict)


def match(submissions: Sequence[Submission], roster: Roster) -> Matches:
    """Matches submissions and people. Of several submissions of one person, the one handed in last counts."""
    matches = Matches()
    by_person: dict[int, list[int]] = {}
    for index, submission in enumerate(submissions):
        found, exact = _find(submission.learner, roster.people)
        if len(found) == 1:
            by_person.setdefault(found[0], []).append(index)
            if not exact:
                matches.remarks[index] = f"taken for {roster.people[found[0]].name}"
        else:
            matches.unknown.append(index)
            names = ", ".join(roster.people[person].name for person in found)
            matches.remarks[index] = f"could be each of {names}" if found else "not on the roster"
    for person, indices in by_person.items():
        last = max(indices, key=lambda index: (_time(submissions[index]), index))
        matches.of_person[person] = last
        for index in indices:
            if index != last:
                matches.earlier.append(index)
                matches.remarks[index] = f"does not count: {submissions[last].learner} was handed in later"
    matches.earlier.sort()
    return matches


def _time(submission: Submission) -> float:
    return submission.handed_in.at.timestamp() if submission.handed_in else 0.0


def _find(learner: str, people: Sequence[Person]) -> tuple[list[int], bool]:
    """The indices of those who fit best, and whether they fit exactly."""
    if found := CANVAS.match(learner):
        by_number = [index for index, person in enumerate(people) if person.cells.get("canvas") == found[1]]
        if by_number:
            return by_number, True
    plain = PACKED.sub("", MOODLE.sub("", SAME_NAME.sub("", learner)))
    for way, exact in (
        (_same_key, True),
        (_same_name, True),
        (_has_number, True),
        (_ends_with_login, False),
        (_similar_name, False),
    ):
        if fitting := [index for index, person in enumerate(people) if way(plain, person)]:
            return fitting, exact
    return [], False


def _keys(person: Person) -> Iterator[str]:
    """What names this person and nobody else."""
    for what in IDENTIFYING:
        if value := person.cells.get(what, ""):
            yield value.casefold()
            if what == "email":
                yield value.casefold().partition("@")[0]


def _same_key(learner: str, person: Person) -> bool:
    return any(words(learner) == words(key) for key in _keys(person))


def _has_number(learner: str, person: Person) -> bool:
    """Whether a student's number, or a login with digits, is there as a whole."""
    text = f" {' '.join(words(learner))} "
    return any(NUMBERED.match(key) and f" {' '.join(words(key))} " in text for key in _keys(person))


def _ends_with_login(learner: str, person: Person) -> bool:
    """Whether it is a folder as `gh classroom clone` makes them: the assignment's name and a GitHub login."""
    login = person.cells.get("github", "").casefold()
    return bool(login) and learner.casefold().endswith(f"-{login}")


def _name_words(text: str) -> list[str]:
    return sorted(word for word in words(text) if not word.isdecimal())


def _same_name(learner: str, person: Person) -> bool:
    """Whether the words are the same, in whatever order: `Right, Anna` is `anna-right`."""
    return any(_name_words(learner) == _name_words(name) != [] for name in _names(person))


def _similar_name(learner: str, person: Person) -> bool:
    """Whether one name has all words of the other one, and at least two."""
    given = set(_name_words(learner))
    return any(
        min(len(given), len(known)) > 1 and (given <= known or known <= given)
        for known in (set(_name_words(name)) for name in _names(person))
    )


def _names(person: Person) -> Iterator[str]:
    if "first" in person.cells and "last" in person.cells:
        yield f"{person.cells['first']} {person.cells['last']}"
    if "name" in person.cells:
        yield person.cells["name"]
