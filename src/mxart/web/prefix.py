"""Where the API is. By itself: the rest of it is imported when somebody asks for it first."""

PREFIX = "/-/api/v1"
