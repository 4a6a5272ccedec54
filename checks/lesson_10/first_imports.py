"""Imports modules of an app, each of them first in a process of its own: `python -c SOURCE NAME ...`.

With `together` before the names they are imported one after the other in one process instead. A line after MARK tells
of each module what its import has raised: nothing, or an error.

To import 40 modules from nothing takes seconds, most of them for a few that nearly all others import. So a process that
has imported such a module is forked for each of those that import it, too. That module takes part in no circle of
imports, so that nothing depends on who imports it first. What is in a circle is imported from nothing. After that the
web server is imported, too: it must have the endpoints that it has when it is imported first.

A package that imports its own modules, such as one with the tables, is not such a circle: whichever is imported
first, Python imports the package before it.
"""

import builtins
import gc
import importlib
import importlib.util
import json
import os
import sys

MARK = "imported "
WEB = "app.main"
NAMES = sys.argv[1:]


def report(name, error=""):
    os.write(1, f"\n{MARK}{name}{': ' if error else ''}{' '.join(error.split())}\n".encode())


def load(name):
    """Imports a module; what it raises, as text."""
    try:
        importlib.import_module(name)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def forked(task):
    """Runs `task()` in a copy of this process and returns the JSON that it makes; None if the copy ends before."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        made = json.dumps(task()).encode()
        while made:
            made = made[os.write(writes, made) :]
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        made = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(made) if made else None


def learn():
    """Which modules of the app import which, while they are imported; None if one of them cannot be imported."""
    edges = {name: set() for name in NAMES}
    plain = builtins.__import__

    def noting(name, globals=None, locals=None, fromlist=(), level=0):
        importer = (globals or {}).get("__name__")
        if importer in edges:  # noted before the import, for it may fail, and the module may catch that
            base = importlib.util.resolve_name("." * level + name, globals["__package__"]) if level else name
            edges[importer] |= {base, *(f"{base}.{part}" for part in fromlist or ())}
        return plain(name, globals, locals, fromlist, level)

    builtins.__import__ = noting
    errors = [load(name) for name in NAMES]
    if any(errors):
        return None
    for name in NAMES:
        parent, _, _ = name.rpartition(".")
        edges[name] = {one for one in {*edges[name], parent} if one in edges and one != name}
    return {name: sorted(found) for name, found in edges.items()}


def closure(name, edges):
    """What the import of a module imports, directly or not. It is part of that if it is in a circle."""
    found, ahead = set(), [name]
    while ahead:
        for one in edges[ahead.pop()]:
            if one not in found:
                found.add(one)
                ahead.append(one)
    return found


def in_a_circle(name, closures):
    """Whether the order in which this module and others are imported depends on which of them is imported first."""
    circle = [one for one in closures[name] if name in closures[one]]
    package = min(circle, key=len, default=name)
    return any(one != package and not one.startswith(f"{package}.") for one in circle)


def endpoints():
    """Methods and paths of the web server, by its own description; none where it has no description."""
    try:
        paths = importlib.import_module(WEB).app.openapi()["paths"]
        return sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)
    except Exception:
        return []


def load_first(name, expected):
    """Imports a module, then the web server; what is wrong, as text."""
    if error := load(name):
        return error
    found = endpoints() if expected else ()
    missing = [one for one in expected or () if one not in found]
    return f"no error, but after that {WEB} has no {', '.join(missing)}" if missing else ""


def solve(pending, loaded, closures, shared, expected):
    """Reports on all that is pending. What is loaded here, each of these modules imports, too.

    `expected` has the endpoints of the web server, by each module whose import could take some away.
    """
    while pending:
        groups = {one: [name for name in pending if one in closures[name]] for one in shared - loaded}
        best = max(groups, key=lambda one: (len(groups[one]), len(closures[one]), one), default=None)
        if best is None or len(groups[best]) < 2:
            break
        group = groups[best]
        if os.fork() == 0:
            if error := load(best):
                for name in group:
                    report(name, error)
                os._exit(0)
            solve(group, loaded | {best} | closures[best], closures, shared, expected)
            os._exit(0)
        os.wait()
        pending = [name for name in pending if name not in group]
    for name in pending:
        if os.fork() == 0:
            report(name, load_first(name, expected.get(name)))
            os._exit(0)
        os.wait()


def main():
    gc.disable()
    if NAMES[0] == "together":
        for name in NAMES[1:]:
            report(name, load(name))
        return
    edges = forked(learn)
    if edges is None:
        solve(NAMES, set(), {name: set() for name in NAMES}, set(), {})
        return
    closures = {name: closure(name, edges) for name in NAMES}
    in_circles = {name for name in NAMES if in_a_circle(name, closures)}
    shared = {name for name in NAMES if not in_circles & {name, *closures[name]}}
    expected = dict.fromkeys(set(NAMES) - shared, forked(endpoints)) if in_circles else {}
    solve(NAMES, set(), closures, shared, expected)


if __name__ == "__main__":
    main()
