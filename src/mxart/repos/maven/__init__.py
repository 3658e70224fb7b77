"""The format `maven`: coordinates, versions, metadata, checksums."""
