"""`python -m mxart` is the same as `mxart`."""

from mxart.cli import main

main(prog_name="mxart")
