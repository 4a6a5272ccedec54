"""The learner's app as a process of its own, seen from our side."""
