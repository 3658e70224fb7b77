"""`python -m mxart` is the same as `mxart`."""

import gc

# Nothing that importing makes is ever garbage; looking for it takes a tenth of the time to be ready.
gc.disable()

from mxart.cli import main  # noqa: E402  # see above

if __name__ == "__main__":
    main(prog_name="mxart")
