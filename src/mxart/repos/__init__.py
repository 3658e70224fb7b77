"""The artifacts: formats that parse and word, kinds that know where bytes live. Knows nothing of sockets."""
