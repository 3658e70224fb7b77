"""Pages for people, and the API below /-/api/v1."""
