"""The graders: one folder a lesson, the kit they share, and the workbook's tests of itself."""
