"""Reads a text of the shell: its commands, and whether the failure of one is the failure of all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from checks.lesson_18.dockerfile import words_of

OPERATORS = ("&&", "||", ";", "|", "&")
KEYWORDS = ("then", "do", "else", "time", "exec", "(", "{")
"""What may come before a command and changes nothing about its exit code."""

CONDITIONS = ("if", "elif", "while", "until", "!")
ENDS_AT_FAILURE = re.compile(r"-[a-z]*e[a-z]*")


@dataclass(frozen=True)
class Command:
    """A command with the operator after it. `rest` is what follows in the same list, `last` whether that is the last.

    A list is what `&&`, `||` and `|` connect. `ends_at_failure` and `whole_pipe` are what `set -e` and `set -o
    pipefail` do, as they are at this command.
    """

    words: tuple[str, ...]
    after: str
    rest: tuple[Command, ...] = field(default=(), repr=False)
    last: bool = True
    is_condition: bool = False
    ends_at_failure: bool = False
    whole_pipe: bool = False

    @property
    def ignored(self) -> str:
        """Why the shell may end with exit code 0 though this command fails; empty if it does not."""
        if self.is_condition:
            return "it is a condition, and the shell goes on"
        for command, after in ((one, one.after) for one in (self, *self.rest)):
            if after == "|" and not self.whole_pipe:
                return "a pipe comes after it, and the exit code is that of the last command"
            if after == "&":
                return "it runs in the background"
            if after == "||" and not _fails(command.rest[:1]):
                return "`||` comes after it"
        if self.last or (self.ends_at_failure and self.after != "&&"):
            return ""
        if self.ends_at_failure:
            return "`&&` comes after it, and then the shell goes on with the next line"
        return "the shell goes on after a failure"


def commands_of(text: str, *, ends_at_failure: bool = False, whole_pipe: bool = False) -> list[Command]:
    """The commands of a text, in their order. The options are those with which the shell was started."""
    found: list[Command] = []
    lists = list(_lists(text))
    for number, parts in enumerate(lists):
        rest: tuple[Command, ...] = ()
        for words, after in reversed(parts):
            is_condition = bool({*words[:2]} & {*CONDITIONS})
            plain = _plain(words)
            command = Command(plain, after, rest, number == len(lists) - 1, is_condition, ends_at_failure, whole_pipe)
            rest = (command, *rest)
        found += rest
        if parts[0][0][:1] == ["set"]:
            ends_at_failure, whole_pipe = _options(parts[0][0][1:], ends_at_failure, whole_pipe)
    return found


def _lists(text: str) -> Iterator[list[tuple[list[str], str]]]:
    """The lists of a text: commands and the operators after them."""
    parts: list[tuple[list[str], str]] = []
    command: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = words_of(line)
        if words[:1] and words[0].startswith("#"):
            continue
        for word in [*words, ";"]:
            if word not in OPERATORS:
                command.append(word)
                continue
            if command:
                parts.append((command, word))
                command = []
            if word in (";", "&") and parts and not (word == ";" and parts[-1][1] in ("&&", "||", "|")):
                yield parts
                parts = []
    if parts:
        yield parts


def _plain(words: list[str]) -> tuple[str, ...]:
    while words and words[0] in (*CONDITIONS, *KEYWORDS):
        words = words[1:]
    return tuple(words)


def _options(words: list[str], ends_at_failure: bool, whole_pipe: bool) -> tuple[bool, bool]:
    """What a `set` command makes of the two options."""
    for option, name in zip(words, [*words[1:], ""], strict=True):
        on = option.startswith("-")
        if re.fullmatch(r"[-+][a-z]+", option):
            if "e" in option or ("o" in option and name == "errexit"):
                ends_at_failure = on
            if "o" in option and name == "pipefail":
                whole_pipe = on
    return ends_at_failure, whole_pipe


def _fails(after: tuple[Command, ...]) -> bool:
    """Whether what follows `||` ends the shell with a failure, too."""
    if not after:
        return False
    words = after[0].words
    return words[:1] == ("false",) or (words[:1] == ("exit",) and words[1:2] != ("0",))
