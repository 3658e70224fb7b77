"""One request: accept, route, answer."""
