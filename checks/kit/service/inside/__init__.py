"""What runs on the learner's side, in a sandbox if there is one. Imports nothing else of the kit."""
