"""Which of the three launchers this run uses."""

from __future__ import annotations

import os
from collections.abc import Mapping

from checks.kit.service.inside.spec import connect
from checks.kit.service.launcher import Launcher, SpawnLauncher, WarmLauncher
from checks.kit.service.prestart import take_fork_server
from checks.kit.service.run_record import RunRecord
from checks.kit.service.sandbox import SandboxSpec

FORK_SERVER_SOCKET = "WORKBOOK_FORK_SERVER"
"""In the environment: the Unix socket of a fork server that serves several graders, each by a fork of itself."""


def open_launcher(run_record: RunRecord, environ: Mapping[str, str] = os.environ) -> Launcher:
    """A launcher for one run, already on its way when this returns.

    In order: the sandboxed one, where `environ` describes a sandbox; the plain one, where there is no fork or with
    WORKBOOK_SPAWN=1; a warm one on a fork server that several graders share; a warm one with its own.
    """
    if sandbox_spec := SandboxSpec.from_environ(environ):
        from checks.kit.service.sandboxed import SandboxedLauncher

        return SandboxedLauncher(run_record, sandbox_spec)
    # an untrusted app comes first: no setting may lead around the sandbox
    if not hasattr(os, "fork") or environ.get("WORKBOOK_SPAWN"):
        return SpawnLauncher(run_record)
    if shared := environ.get(FORK_SERVER_SOCKET):
        return WarmLauncher(run_record, lambda: (connect(shared), None))
    return WarmLauncher(run_record, take_fork_server)
