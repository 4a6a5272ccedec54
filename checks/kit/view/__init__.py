"""The local page of `workbook view`: what it shows, and how that reaches a browser."""
