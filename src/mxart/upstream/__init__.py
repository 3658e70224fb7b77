"""Other servers: asking them truthfully, politely and once."""
