"""Many people's code, graded unattended: what was handed in, how it is run, and what becomes of the verdicts."""
