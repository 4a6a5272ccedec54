"""Grades the submissions of a class: intake/ reads them, work/ runs the checks, results/ writes what came of it."""
