"""The grading kit. Imports run downwards only: cli, plugin, report, service, wire, postgres, catalogue."""
