"""The lessons as data: what lesson.toml declares, hints, variants and their patches, what git knows, progress."""
