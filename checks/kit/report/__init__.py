"""Verdicts: the model, and one module for each way to show it."""

from checks.kit.lessons.words import plural
from checks.kit.report.difference import difference
from checks.kit.report.model import CheckFailed, Finding, Outcome, Place, Report, Result, expect

__all__ = ["CheckFailed", "Finding", "Outcome", "Place", "Report", "Result", "difference", "expect", "plural"]
