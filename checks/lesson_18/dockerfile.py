"""Reads a Dockerfile: what an image runs, as whom, with which files. Nothing is built; what RUN does is left open."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from checks.kit.report import expect

KNOWN = {
    *("FROM", "ARG", "ENV", "WORKDIR", "USER", "COPY", "ADD", "RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL"),
    *("STOPSIGNAL", "EXPOSE", "LABEL", "VOLUME", "ONBUILD", "MAINTAINER"),
}
VARIABLE = re.compile(r"\\\$|\$\{(?P<braced>\w+)(?::?(?P<mark>[-+?])(?P<other>[^}]*))?\}|\$(?P<plain>\w+)")
MOUNTED_FROM = re.compile(r"--mount=\S*\bfrom=([^\s,]+)")
"""An image, or a stage, of which a step sees the files."""

UNREADABLE = "Nobody can build the release."

ESSENTIAL = """
    [ base32 base64 basename cat chgrp chmod chown cksum comm cp cut date dd df dirname du echo egrep env
    expand expr false fgrep find flock fold grep groups gunzip gzip head hostname id install join ln ls md5sum mkdir
    mkfifo mktemp mv nice nl nohup nproc od paste printenv printf pwd readlink realpath rm rmdir sed seq sh
    sha1sum sha256sum sha512sum shuf sleep sort split stat stdbuf sum sync tac tail tar tee test timeout touch
    tr true truncate tty uname uniq unlink wc which whoami xargs yes
""".split()  # noqa: SIM905  (one can read it)
"""Programs of every image that has a shell."""


@dataclass
class Image:
    """What a stage of a Dockerfile makes. `files` maps absolute paths in the image to names below the lesson's folder.

    `command` and `entrypoint` are what the engine executes, with the shell where they are written as a text.
    `steps` are the texts of RUN, `named` the names that ENV and ARG set, in this stage and those that it continues.
    """

    base: str
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    workdir: str = "/"
    user: str = ""
    files: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    command: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    in_shell: bool = False
    health: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    root: str = ""
    """The image that the first stage of this chain is made from."""
    origins: list[Image] = field(default_factory=list)
    """Other stages from which files are copied, and those from which they copy."""
    others: set[str] = field(default_factory=set)
    """Images of other people from which files are copied, or mounted in a step."""

    def expanded(self, text: str) -> str:
        return expanded(text, self.args | self.env)

    @property
    def words(self) -> list[str]:
        """The words of all RUN steps."""
        return [word for step in self.steps for word in words_of(step)]

    @property
    def programs(self) -> list[str]:
        """The programs of the image's system that a command may use, as far as its name and its packages tell."""
        name, _, tag = self.root.rpartition("/")[2].partition(":")
        if "distroless" in self.root or name == "scratch":
            return []
        found = [*ESSENTIAL]
        if "alpine" in tag or name == "alpine":
            found += ["wget", "nc", "awk"]
        else:
            found += ["bash", "awk", "perl"]
            if name == "python" and "slim" not in tag:
                found += ["curl", "wget"]
        installed = {word for word in self.words if not word.startswith("-")}
        packages = {"curl": "curl", "wget": "wget", "netcat-openbsd": "nc", "postgresql-client": "pg_isready"}
        return found + [program for package, program in packages.items() if package in installed]


def read_stages(path: Path, context: Iterable[str], args: Mapping[str, str] | None = None) -> dict[str, Image]:
    """All stages by name, those without one by their number; the last one is there as "" as well."""
    from dockerfile_parse import DockerfileParser

    expect(path.is_file(), f"There is no {path.name}.", because=UNREADABLE, section="Five ways to write CMD")
    names = list(context)
    stages: dict[str, Image] = {}
    common: dict[str, str] = {}
    image: Image | None = None
    for entry in DockerfileParser(fileobj=BytesIO(path.read_bytes())).structure:
        word, value = entry["instruction"].upper(), str(entry["value"])
        if word == "FROM":
            words = [one for one in value.split() if not one.startswith("--")]
            base = expanded(words[0], common)
            image = deepcopy(stages[base]) if base in stages else Image(base, root=base)
            image.base = base
            image.args = {}
            stages[str(sum(name.isdigit() for name in stages))] = image
            if len(words) == 3:
                stages[words[2]] = image
        elif image is None:
            if word == "ARG":
                common |= _args(value, common, args or {})
        elif word in KNOWN:
            _apply(image, word, value, names, stages, common, args or {})
        elif word != "COMMENT" and image.steps and "<<" in image.steps[-1]:
            image.steps[-1] += f"\n{entry['content'].strip()}"  # a line of a here-document
    expect(
        image is not None and bool(image.command or image.entrypoint),
        f"{path.name} has no CMD and no ENTRYPOINT.",
        because=UNREADABLE,
        section="Five ways to write CMD",
    )
    assert image is not None
    return stages | {"": image}


def _apply(
    image: Image,
    word: str,
    value: str,
    context: list[str],
    stages: Mapping[str, Image],
    common: Mapping[str, str],
    args: Mapping[str, str],
) -> None:
    match word:
        case "ARG":
            image.args |= _args(value, common, args)
            image.named |= {one.partition("=")[0] for one in words_of(value)}
        case "ENV":
            for name, text in _pairs(value):
                image.env[name] = image.expanded(text)
                image.named.add(name)
        case "WORKDIR":
            image.workdir = posixpath.normpath(posixpath.join(image.workdir, image.expanded(value.strip().strip('"'))))
        case "USER":
            image.user = image.expanded(value.strip().strip("\"'"))
        case "SHELL":
            image.shell = listed(value) or image.shell
        case "RUN":
            image.steps.append(value)
            image.others |= {*MOUNTED_FROM.findall(value)} - {*stages}
        case "CMD":
            image.command = listed(value) or [*image.shell, value]
        case "ENTRYPOINT":
            image.in_shell = listed(value) is None
            image.entrypoint = listed(value) or [*image.shell, value]
            image.command = []
        case "STOPSIGNAL":
            image.stop_signal = image.expanded(value.strip())
        case "HEALTHCHECK":
            _, _, test = value.partition("CMD")
            image.health = (listed(test.strip()) or [*image.shell, test.strip()]) if test else []
        case "COPY" | "ADD":
            _copy(image, value, context, stages)


def _args(value: str, common: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for one in words_of(value):
        name, _, default = one.partition("=")
        found[name] = given.get(name, expanded(default, common) if "=" in one else common.get(name, ""))
    return found


def _pairs(value: str) -> list[tuple[str, str]]:
    """The names and values of ENV: `A=1 B="2 3"`, or the old form `A value`."""
    words = words_of(value)
    if words and "=" not in words[0]:
        name, _, text = value.strip().partition(" ")
        return [(name, text.strip())]
    return [(name, text) for name, _, text in (word.partition("=") for word in words)]


def _copy(image: Image, value: str, context: list[str], stages: Mapping[str, Image]) -> None:
    options, rest = [], value.strip()
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        options.append(option)
        rest = rest.strip()
    words = [image.expanded(word) for word in (listed(rest) or words_of(rest))]
    sources, goal = words[:-1], words[-1] if words else ""
    origin = next((option.partition("=")[2] for option in options if option.startswith("--from=")), "")
    if origin and origin not in stages:  # of another image, which has none of our files
        image.others.add(image.expanded(origin))
        return
    files = {name: name for name in context}
    if origin:
        image.origins += [stages[origin], *stages[origin].origins]
        files = {place.lstrip("/"): name for place, name in stages[origin].files.items()}
    place = posixpath.normpath(posixpath.join(image.workdir, goal))
    is_folder = len(sources) > 1 or goal.endswith(("/", ".")) or place == image.workdir
    is_folder = is_folder or any(known.startswith(f"{place}/") for known in image.files)
    for source in sources:
        for file, below in _matching(files, posixpath.normpath(source).strip("/").removeprefix(".") or ""):
            copied = posixpath.join(place, below or posixpath.basename(file)) if below or is_folder else place
            image.files[copied] = files[file]


def _matching(files: Iterable[str], source: str) -> list[tuple[str, str]]:
    """The files that a source of COPY means, and where each of them is below it; "" for a file itself."""
    found = []
    for file in files:
        parts = file.split("/")
        if not source:
            found.append((file, file))
            continue
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if above == source or (depth == source.count("/") + 1 and fnmatch.fnmatchcase(above, source)):
                found.append((file, "/".join(parts[depth:])))
                break
    return found


def listed(text: str) -> list[str] | None:
    """The words of an instruction in exec form, which is a JSON list of strings; None in shell form."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) and value else None


def words_of(text: str) -> list[str]:
    """The words of a shell's text, with its operators as words; as they are where quotes do not match."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return text.split()


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Puts in the values of variables, as builders and compose do: `$NAME`, `${NAME:-default}`."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "\\$":
            return "$"
        found = variables.get(match["braced"] or match["plain"], "")
        if match["mark"] == "-":
            return found or match["other"]
        return (match["other"] if found else "") if match["mark"] == "+" else found

    return VARIABLE.sub(value, text)
