"""What the program must reach, measured: one module a question, every figure a ratio to a peer in the same run."""
