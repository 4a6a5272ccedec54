"""How alike two submissions of a lesson are, by the tokens of what each has beyond the lesson as handed out.

Comments, docstrings, white space, line ends, and the names, texts and numbers that somebody chose do not count, nor
does the order of files and functions. What remains are overlapping runs of tokens; two submissions are as alike as the
share of runs that both have among those that either has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import combinations

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Name, Number, String, Text, Whitespace, _TokenType

from checks.kit.submissions.model import Files

RUN = 10
"""Tokens of a run: fewer, and everybody's `await session.execute(...)` is alike."""

MIN_RUNS = 60
"""Runs of its own that a submission must have to be compared: short fixes are alike because they are right."""

ALIKE = 0.9
"""From this share on, a pair is shown. A copy with other names has 1.0; other ways to fix the same lesson have less."""

MAX_BYTES = 100_000
"""Bytes of a file that is read for its tokens; a lesson's own files have a tenth of that."""

CHOSEN = {Number: "0", String: "''"}
"""The token of any number and of any text."""

Runs = frozenset[int]


def own_runs(files: Files, handed_out: Files) -> Runs:
    """The runs of the Python files that the lesson as handed out does not have."""
    return _runs(files) - _runs(handed_out)


def alike(runs: Mapping[str, Runs]) -> Iterator[tuple[str, str, float]]:
    """The pairs that are alike, with their share, the most alike first."""
    large = {name: own for name, own in runs.items() if len(own) >= MIN_RUNS}
    pairs = [(one, other, share(large[one], large[other])) for one, other in combinations(large, 2)]
    yield from sorted((pair for pair in pairs if pair[2] >= ALIKE), key=lambda pair: (-pair[2], pair[:2]))


def share(one: Runs, other: Runs) -> float:
    """Which share of the runs of either both have, 0 to 1."""
    return len(one & other) / len(one | other) if one or other else 0.0


def _runs(files: Files) -> Runs:
    python = (content for path, content in files.items() if path.endswith(".py") and len(content) <= MAX_BYTES)
    return Runs().union(*map(_runs_of_file, python))


@lru_cache(maxsize=4096)  # most files of a submission are as they were handed out
def _runs_of_file(content: bytes) -> Runs:
    tokens = list(_tokens(content.decode(errors="replace")))
    return Runs(hash(tuple(tokens[start : start + RUN])) for start in range(max(0, len(tokens) - RUN + 1)))


def _tokens(source: str) -> Iterator[str]:
    before = ""
    for kind, text in PythonLexer().get_tokens(source):
        token = _token(kind, text)
        if token and not (token == before == CHOSEN[String]):  # a text with escapes is several tokens
            yield token
        before = token or before


def _token(kind: _TokenType, text: str) -> str:
    """The token as it counts; "" if it does not."""
    if kind in Comment or kind in Text or kind in Whitespace or kind in String.Doc:
        return ""
    if kind in Name and kind not in Name.Builtin:
        return "name"
    return next((token for chosen, token in CHOSEN.items() if kind in chosen), text)
