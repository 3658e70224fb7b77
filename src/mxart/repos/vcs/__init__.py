"""The kind `vcs`: Go modules read from the repositories that they are written in."""
