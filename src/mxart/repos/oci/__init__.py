"""The OCI distribution format."""
