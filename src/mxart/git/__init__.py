"""Other people's git repositories: asked and copied by the git command, and read from the copy. Knows no packages."""
