"""MxArtifact: one program that holds a team's own packages and caches everybody else's."""

__version__ = "0.1.0"
