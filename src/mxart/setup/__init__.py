"""Settings for clients: what to write where, and how it is merged into what is there."""
