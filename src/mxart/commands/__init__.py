"""The subcommands, a file each; `cli` gathers them."""
