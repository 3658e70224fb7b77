"""Certificates for development. See `python -m certs`."""
