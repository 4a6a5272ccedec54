"""Whether two runs that begin at the same moment would give one name to their databases.

Two runs seldom begin within one second, so nobody sees that. But a name that is made of the time can be read: take the
time out of it, and the names of two runs are equal.
"""

import re
from datetime import UTC, datetime

FORMATS = ("%s", "%Y%m%d%H%M%S", "%y%m%d%H%M%S", "%m%d%H%M%S", "%d%H%M%S", "%H%M%S", "%Y%m%d%H%M", "%H%M")
"""Digits of a moment. `%s` are the seconds of Unix, here also where strftime does not know it."""

MADE = re.compile(r'\bcreate\s+database\s+(?:"([^"]+)"|(\w+))', re.IGNORECASE)


def made_databases(statements):
    """The names of databases that statements make, each once, first to last."""
    found = [match for statement in statements for match in MADE.finditer(statement.text)]
    return list(dict.fromkeys(match[1] or match[2] for match in found))


def named_by_the_time(names, began, ended):
    """Two of the names that differ in the time only, or None. They were made between two times, in seconds of Unix."""
    seen = {}
    for name in names:
        for rest in without_the_time(name, int(began), int(ended)):
            other = seen.setdefault(rest, name)
            if other != name:
                return other, name
    return None


def without_the_time(name, began, ended):
    """What is left of a name without a moment between the two, for each way in which it may be written there."""
    letters, digits = re.sub("[0-9]+", "#", name), re.sub("[^0-9]", "", name)
    rests = set()
    for second in range(began, ended + 1):
        moments = (datetime.fromtimestamp(second, UTC), datetime.fromtimestamp(second, UTC).astimezone())
        for shape in FORMATS:
            for moment in moments:
                text = str(second) if shape == "%s" else moment.strftime(shape)
                if text in digits:
                    rests.add((shape, letters, digits.replace(text, "", 1)))
    return rests
