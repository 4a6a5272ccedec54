"""Verdicts: the model, and one module for each way to show it."""

from checks.kit.report.model import Crossing, Finding, Outcome, Place, Refuted, Report, Result, expect

__all__ = ["Crossing", "Finding", "Outcome", "Place", "Refuted", "Report", "Result", "expect"]
