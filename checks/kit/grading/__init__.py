"""The side of pytest: collects the checks of a lesson, runs them, and keeps their results."""
