"""Another release of the app, written to a folder of its own, so that it can serve beside the learner's."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path

from checks.kit.lessons.patches import Tree, write_tree
from checks.kit.lessons.paths import RELEASES


def release_folder(lesson: str, tree: Tree) -> Path:
    """The folder with these files, for `testbed.launch(folder=...)`. It is written once, and kept for later runs.

    A sandbox sees the folders of its own lesson, such as "lesson_13", and of no other.
    """
    digest = hashlib.sha256()
    for name, content in sorted(tree.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    folder = RELEASES / lesson / digest.hexdigest()[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft_", dir=folder.parent))
        draft.chmod(0o755)  # in a sandbox the app has an account of its own
        write_tree(tree, draft)
        with contextlib.suppress(OSError):  # another run has just written it
            draft.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
    return folder
