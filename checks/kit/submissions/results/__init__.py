"""Writes the results of a class for people, spreadsheets and learning platforms."""
