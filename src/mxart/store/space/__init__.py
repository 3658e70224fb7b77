"""Space that comes back: what nothing refers to is collected, caches are kept to their size, old versions retire."""
