"""Makes marks of grades: who is on the roster, what lessons and checks are worth, and what being late costs."""
