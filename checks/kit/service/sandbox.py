"""The sandbox around a stranger's app: bubblewrap's namespaces, and nothing in them but what an app needs.

Inside there is a read-only system, the interpreter with its packages, this room of the kit, the lesson's folder,
and a /tmp of limited size that ends with the sandbox. There is no network but an empty loopback of its own, no
other process, no environment. What crosses the fence are open sockets, handed in by the launcher.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

CONFINED = "WORKBOOK_CONFINED"
"""In the environment of a grader: a Confinement as JSON."""

USER = "WORKBOOK_SANDBOX_USER"
"""In the environment of a sandbox: the number of the account that its processes change to."""

FIRST_USER = 65_000
"""As root, each sandbox that runs at the same time has an account of its own, from this number on: what the
kernel counts per account, such as processes, is then no matter between neighbours."""

SCRATCH = 64 << 20
"""Bytes that fit into /tmp, and into /dev/shm."""

MEMORY, FILE_SIZE, CPU, FILES, PROCESSES = 2 << 30, 32 << 20, 60, 256, 64
"""Limits of a process in here: bytes of address space, bytes of a file, seconds of processor time, descriptors; and
how many processes and threads there may be in all."""

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
"""The families of sockets that there are inside."""

TRIAL = "from checks.kit.service.sandbox import settle_in; settle_in(); import uvicorn"

DENIED = (
    # namespaces and mounts, in which limits could be left behind
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "open_tree", "move_mount"),
    # memory that belongs to no process, so that nobody sees whose it is
    *("memfd_create", "memfd_secret", "shmget", "semget", "msgget", "mq_open"),
    # other processes, and what only the kernel's own tests should touch
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "open_by_handle_at", "userfaultfd"),
    *("bpf", "perf_event_open", "io_uring_setup", "add_key", "keyctl", "request_key"),
)

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
KIT = ("checks/__init__.py", "checks/kit/__init__.py", "checks/kit/head_start.py", "checks/kit/service")
ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a grader is to run a stranger's app.

    `folder` is the lesson's; `sandbox` is "root" or "user" (see `way`), or empty: limits only. `slot` numbers
    the graders that run at the same time, from 0.
    """

    folder: str
    sandbox: str
    slot: int = 0

    def to_environ(self) -> dict[str, str]:
        return {CONFINED: json.dumps(asdict(self))}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Confinement | None:
        """None for a grader of the learner's own code."""
        text = environ.get(CONFINED)
        return cls(**json.loads(text)) if text else None


def way() -> tuple[str, str]:
    """Which sandbox this machine can have, "root", "user" or "" for none, and a sentence that says so.

    As root bubblewrap needs no user namespace, and each sandbox gets an account of its own; an ordinary user,
    or root in a container, gets a user namespace.
    """
    if sys.platform != "linux":
        return "", "limits only: bubblewrap is for Linux"
    if shutil.which("bwrap") is None:
        return "", "limits only: bubblewrap is not installed (apt-get install bubblewrap)"
    why = ""
    for sandbox in ("root", "user") if os.geteuid() == 0 else ("user",):
        trial = command(Confinement(str(Path(__file__).parent), sandbox), ["--", sys.executable, "-c", TRIAL])
        done = subprocess.run(trial, capture_output=True, text=True, env={}, timeout=60)
        if done.returncode == 0:
            inside = "an account of its own" if sandbox == "root" else "a user namespace"
            calls = "filtered system calls" if filtered() else "system calls not filtered, as libseccomp is missing"
            return sandbox, f"bubblewrap: no network, no other processes, a read-only system, {inside}, {calls}"
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return "", f"limits only: bubblewrap cannot make a sandbox on this machine ({why})"


def start(confinement: Confinement, program: list[str], stdin: int) -> subprocess.Popen[bytes]:
    """Runs `program` in the sandbox; it ends with its parent, and everything inside ends with it."""
    with tempfile.TemporaryFile() as file:
        file.write(filtered())
        file.seek(0)
        syscalls = ["--seccomp", str(file.fileno())] if filtered() else []
        return subprocess.Popen(
            command(confinement, [*syscalls, "--", *program]),
            stdin=stdin, env={}, cwd="/", start_new_session=True, pass_fds=[file.fileno()],
        )  # fmt: skip


@cache
def filtered() -> bytes:
    """The filter of system calls, as the kernel reads it; empty where libseccomp is missing."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        return b""
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED:
        with contextlib.suppress(ValueError, OSError):  # an older library does not know it
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    new_user = 0x10000000
    calls.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, new_user, new_user))
    calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # whose flags no filter sees; everybody falls back to clone
    shared_and_anonymous = 0x21
    calls.add_rule(
        pyseccomp.ERRNO(errno.EPERM),
        "mmap",
        pyseccomp.Arg(3, pyseccomp.MASKED_EQ, shared_and_anonymous, shared_and_anonymous),
    )
    for family in sorted(set(range(UNIX, NETLINK + 1)) - {UNIX, INET, INET6, NETLINK}):
        calls.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    calls.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", pyseccomp.Arg(0, pyseccomp.GT, NETLINK))
    with tempfile.TemporaryFile() as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()


def command(confinement: Confinement, rest: list[str]) -> list[str]:
    """bubblewrap's command line; `rest` is its last options, `--` and the program."""
    as_root = confinement.sandbox == "root"
    return [
        shutil.which("bwrap") or "bwrap",
        # PID 1 is the nursery itself: the kernel spares it every signal from inside that it does not ask for
        *("--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *(("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if as_root else _user()),
        *("--hostname", "bookshop", "--proc", "/proc", "--dev", "/dev"),
        *("--ro-bind", "/dev/null", "/dev/zero"),  # which can be mapped as memory that belongs to nobody
        *_scratch("/dev/shm"),
        *_scratch("/tmp"),
        *_system(),
        *_interpreter(),
        *_shown(Path(confinement.folder)),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *_environment(confinement),
        *("--chdir", "/", *rest),
    ]


def _user() -> tuple[str, ...]:
    return ("--unshare-user", "--disable-userns") if _knows("--disable-userns") else ("--unshare-user",)


def _scratch(path: str) -> tuple[str, ...]:
    size = ("--size", str(SCRATCH)) if _knows("--size") else ()
    return ("--perms", "1777", *size, "--tmpfs", path)


@cache
def _knows(option: str) -> bool:
    """Whether this bubblewrap has an option; those before 0.8 lack some."""
    return option in subprocess.run(["bwrap", "--help"], capture_output=True, text=True).stdout


def _system() -> Iterator[str]:
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from _shown(path)
    for file in ETC:
        yield from ("--ro-bind-try", file, file)


def _interpreter() -> Iterator[str]:
    """Python, its packages, and of the checkout nothing but what the app's process imports."""
    homes = {Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parents[1], Path(sys.prefix)}
    homes = {home for home in homes if not home.is_relative_to("/usr")}
    for home in sorted(home for home in homes if not home.is_relative_to(ROOT)):
        yield from _shown(home)
    yield from (*_parents(ROOT), "--tmpfs", str(ROOT))
    for path in (*sorted(home for home in homes if home.is_relative_to(ROOT)), *(ROOT / name for name in KIT)):
        yield from _shown(path)
    yield from ("--remount-ro", str(ROOT))


def _shown(path: Path) -> Iterator[str]:
    """A file or folder to be read, at its own place."""
    yield from (*_parents(path), "--ro-bind", str(path), str(path))


def _parents(path: Path) -> Iterator[str]:
    """Folders that bubblewrap made by itself would be as closed as those of that name outside, such as /root."""
    for parent in reversed(path.parents[:-1]):
        yield from ("--dir", str(parent))


def _environment(confinement: Confinement) -> Iterator[str]:
    settings = environment() | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if confinement.sandbox == "root":
        settings[USER] = str(FIRST_USER + confinement.slot)
    for name, value in settings.items():
        yield from ("--setenv", name, value)


def environment() -> dict[str, str]:
    """What takes the place of the grader's own PATH, HOME and so on."""
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def settle_in() -> None:
    """To be called inside, before anything else: gives up what is left of root, and closes itself to its children."""
    import ctypes

    if number := os.environ.pop(USER, ""):
        os.setgroups([])
        os.setgid(int(number))
        os.setuid(int(number))
    set_dumpable = 4  # a process that cannot be dumped cannot be traced or read either
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)
