"""What one check runs against: a database, the proxy in front of it, and the learner's processes."""
