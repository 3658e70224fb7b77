"""Bytes at rest: blobs, growing downloads, the catalog of names."""
