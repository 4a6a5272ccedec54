"""The `workbook` command."""

from checks.kit.cli.main import main

__all__ = ["main"]
