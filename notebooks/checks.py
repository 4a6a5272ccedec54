"""The package `checks` for the notebooks, whose folder is the first in which their kernel looks for modules.

It says what to do if the kernel belongs to a Python without the packages of the workbook.
"""

import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

try:
    importlib.metadata.version("bookshop-workbook")
except importlib.metadata.PackageNotFoundError:
    raise SystemExit(
        f"This kernel runs {sys.executable}, which does not have the workbook's packages. "
        f"Choose {ROOT / '.venv'} as the kernel in your editor; or start JupyterLab in {ROOT} with: uv run jupyter lab"
    ) from None

__path__ = [str(ROOT / "checks")]
