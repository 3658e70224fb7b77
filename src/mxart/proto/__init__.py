"""The wire: bytes to requests and back. Knows nothing of repositories."""
