"""The sandbox around an untrusted app: bubblewrap's namespaces, and nothing in them but what an app needs.

Inside there is a read-only system, the interpreter with its packages, service/inside, the lesson's folder,
and a /tmp of limited size that ends with the sandbox. There is no network but an empty loopback of its own, no
other process, no environment. The only way in or out is through sockets that the launcher opens
and passes to the fork server inside.
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

from checks.kit.lessons.paths import RELEASES
from checks.kit.service.inside.privileges import USER
from checks.kit.service.prestart import ROOT

SANDBOX_SPEC = "WORKBOOK_SANDBOX"
"""In the environment of a grader: a SandboxSpec as JSON."""

FIRST_USER = 65_000
"""As root, each sandbox that runs at the same time has an account of its own, from this number on: what the
kernel counts per account, such as processes, then concerns one sandbox only."""

SCRATCH_SIZE = 64 << 20
"""Bytes that fit into /tmp, and into /dev/shm."""

MAX_MEMORY = 2 << 30
"""Bytes of address space of each process."""

MAX_FILE_SIZE = 32 << 20
"""Bytes of each file."""

MAX_CPU = 60
"""Seconds of processor time of each process."""

MAX_FILES = 256
"""Descriptors of each process."""

MAX_PROCESSES = 64
"""Processes and threads of a sandbox, all together."""

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
"""The families of sockets that there are inside."""

TRIAL_PROGRAM = "from checks.kit.service.inside.privileges import drop_privileges; drop_privileges(); import uvicorn"

DENIED_CALLS = (
    # namespaces and mounts, in which limits could be left behind
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "open_tree", "move_mount"),
    # memory that belongs to no process, so that nobody sees whose it is
    *("memfd_create", "memfd_secret", "shmget", "semget", "msgget", "mq_open"),
    # other processes, and what only the kernel's own tests should touch
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "open_by_handle_at", "userfaultfd"),
    *("bpf", "perf_event_open", "io_uring_setup", "add_key", "keyctl", "request_key"),
)

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")

OTHER_APPS = ("old_release.patch", "mutants")
"""What checks/lesson_NN has if its checks run other apps than the learner's, which are below RELEASES."""

INSIDE_FILES = (
    "checks/__init__.py",
    "checks/kit/__init__.py",
    "checks/kit/service/__init__.py",
    "checks/kit/service/inside",
)
"""All that a sandbox sees of the kit; so `inside` can import nothing else of it."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """How a grader is to run an untrusted app.

    `folder` is the lesson's; `sandbox` is "root" or "user" (see `detect`), or empty: limits only. `slot` numbers
    the graders that run at the same time, from 0.
    """

    folder: str
    sandbox: str
    slot: int = 0

    def to_environ(self) -> dict[str, str]:
        return {SANDBOX_SPEC: json.dumps(asdict(self))}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SandboxSpec | None:
        """None for a grader of the learner's own code."""
        text = environ.get(SANDBOX_SPEC)
        return cls(**json.loads(text)) if text else None


def detect() -> tuple[str, str]:
    """Which sandbox this machine can have, "root", "user" or "" for none, and a sentence that says so.

    As root bubblewrap needs no user namespace, and each sandbox gets an account of its own; an ordinary user,
    or root in a container, gets a user namespace. Tried out, not deduced: kernels, distributions and container
    engines forbid namespaces in many ways.
    """
    if sys.platform != "linux":
        return "", "limits only: bubblewrap is for Linux"
    if shutil.which("bwrap") is None:
        return "", "limits only: bubblewrap is not installed (apt-get install bubblewrap)"
    why = ""
    for sandbox in ("root", "user") if os.geteuid() == 0 else ("user",):
        trial = command(SandboxSpec(str(Path(__file__).parent), sandbox), ["--", sys.executable, "-c", TRIAL_PROGRAM])
        done = subprocess.run(trial, capture_output=True, text=True, env={}, timeout=60)
        if done.returncode == 0:
            inside = "an account of its own" if sandbox == "root" else "a user namespace"
            calls = (
                "filtered system calls" if syscall_filter() else "system calls not filtered, as libseccomp is missing"
            )
            return sandbox, f"bubblewrap: no network, no other processes, a read-only system, {inside}, {calls}"
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return "", f"limits only: bubblewrap cannot make a sandbox on this machine ({why})"


def start(sandbox_spec: SandboxSpec, program: list[str], stdin: int) -> subprocess.Popen[bytes]:
    """Runs `program` in the sandbox; it ends with its parent, and everything inside ends with it.

    `stdin` is the descriptor of a socket, the only one of ours that the program gets.
    """
    with tempfile.TemporaryFile() as file:
        file.write(syscall_filter())
        file.seek(0)  # bubblewrap reads on from the position of the descriptor that it inherits
        syscalls = ["--seccomp", str(file.fileno())] if syscall_filter() else []
        return subprocess.Popen(
            command(sandbox_spec, [*syscalls, "--", *program]),
            stdin=stdin, env={}, cwd="/", start_new_session=True, pass_fds=[file.fileno()],
        )  # fmt: skip


@cache
def syscall_filter() -> bytes:
    """The filter of system calls, as the kernel reads it; empty where libseccomp is missing."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        return b""
    # What is not named is allowed: a list of all that CPython, uvicorn and any package call would break with each
    # release of libc. EPERM and not KILL, so that a library which merely asks goes on without.
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED_CALLS:
        with contextlib.suppress(ValueError, OSError):  # an older library does not know it
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    new_user = 0x10000000  # CLONE_NEWUSER: in a new user namespace everybody is root
    calls.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, new_user, new_user))
    calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # whose flags no filter sees; everybody falls back to clone
    shared_and_anonymous = 0x21  # MAP_SHARED | MAP_ANONYMOUS
    calls.add_rule(
        pyseccomp.ERRNO(errno.EPERM),
        "mmap",
        pyseccomp.Arg(3, pyseccomp.MASKED_EQ, shared_and_anonymous, shared_and_anonymous),
    )
    # rarely used families are where the kernel's bugs are
    for family in sorted(set(range(UNIX, NETLINK + 1)) - {UNIX, INET, INET6, NETLINK}):
        calls.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    calls.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", pyseccomp.Arg(0, pyseccomp.GT, NETLINK))
    with tempfile.TemporaryFile() as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()


def command(sandbox_spec: SandboxSpec, rest: list[str]) -> list[str]:
    """bubblewrap's command line; `rest` is its last options, `--` and the program."""
    as_root = sandbox_spec.sandbox == "root"
    return [
        shutil.which("bwrap") or "bwrap",
        # PID 1 is the fork server itself: the kernel lets no signal from inside reach it that it has no handler for,
        # and when it ends, every process of its namespace is killed
        *("--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *(
            ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
            if as_root
            else _user_namespace()
        ),
        *("--hostname", "bookshop", "--proc", "/proc", "--dev", "/dev"),
        *("--ro-bind", "/dev/null", "/dev/zero"),  # which can be mapped as memory that belongs to nobody
        *_tmpfs("/dev/shm"),
        *_tmpfs("/tmp"),
        *_system(),
        *_interpreter(Path(sandbox_spec.folder).name),
        *_read_only(Path(sandbox_spec.folder)),
        # at the end: bubblewrap makes the mount points above in these
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *_environment(sandbox_spec),
        *("--chdir", "/", *rest),
    ]


def _user_namespace() -> tuple[str, ...]:
    return ("--unshare-user", "--disable-userns") if _has_option("--disable-userns") else ("--unshare-user",)


def _tmpfs(path: str) -> tuple[str, ...]:
    size = ("--size", str(SCRATCH_SIZE)) if _has_option("--size") else ()
    return ("--perms", "1777", *size, "--tmpfs", path)


@cache
def _has_option(option: str) -> bool:
    """Whether this bubblewrap has an option; those before 0.8 lack some."""
    return option in subprocess.run(["bwrap", "--help"], capture_output=True, text=True).stdout


def _system() -> Iterator[str]:
    for path in map(Path, SYSTEM_FOLDERS):
        if path.is_symlink():  # /bin is a link to usr/bin on most systems; bound, it would hide that
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from _read_only(path)
    for file in SYSTEM_FILES:
        yield from ("--ro-bind-try", file, file)


def _interpreter(lesson: str) -> Iterator[str]:
    """Python, its packages, and of the checkout what the app's process imports, and the old release of `lesson`."""
    homes = {Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parents[1], Path(sys.prefix)}
    homes = {home for home in homes if not home.is_relative_to("/usr")}
    for home in sorted(home for home in homes if not home.is_relative_to(ROOT)):
        yield from _read_only(home)
    yield from (*_parents(ROOT), "--tmpfs", str(ROOT))
    inside = [ROOT / name for name in INSIDE_FILES]
    # An old release is the solution of the lesson before, so a sandbox of another lesson must not see it.
    if any((ROOT / "checks" / lesson / other).exists() for other in OTHER_APPS):
        releases = RELEASES / lesson
        releases.mkdir(parents=True, exist_ok=True)  # mounted now, it shows what is written into it later
        inside.append(releases)
    for path in (*sorted(home for home in homes if home.is_relative_to(ROOT)), *inside):
        yield from _read_only(path)
    yield from ("--remount-ro", str(ROOT))


def _read_only(path: Path) -> Iterator[str]:
    """A file or folder at its own place, that can be read and not written."""
    yield from (*_parents(path), "--ro-bind", str(path), str(path))


def _parents(path: Path) -> Iterator[str]:
    """Folders that bubblewrap made by itself would be as closed as those of that name outside, such as /root."""
    for parent in reversed(path.parents[:-1]):
        yield from ("--dir", str(parent))


def _environment(sandbox_spec: SandboxSpec) -> Iterator[str]:
    settings = environment() | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if sandbox_spec.sandbox == "root":
        # bubblewrap itself still needs root to set up; the program changes to the account as its first act
        settings[USER] = str(FIRST_USER + sandbox_spec.slot)
    for name, value in settings.items():
        yield from ("--setenv", name, value)


def environment() -> dict[str, str]:
    """What an app inside gets in place of the grader's own PATH, HOME and so on; nothing is inherited."""
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
