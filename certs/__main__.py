"""`python -m certs DIR NAME...`: a development CA in DIR, and a certificate for the given host names and addresses.

For trying the program with certificates of one's own (`[tls] certificates`), and for upstreams that need
a `ca_file`.  DIR is not below this folder: no key is ever committed.  The CA of a DIR is kept and used again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from mxart.atomic import write_atomically
from mxart.errors import ConfigError
from mxart.proto.authority import Authority, key_pem


def main(arguments: list[str]) -> int:
    """The exit status: 2 for the user's mistakes."""
    here = Path(__file__).resolve().parent
    if len(arguments) < 2 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m certs DIR NAME...\n")
        return 2
    folder = Path(arguments[0]).resolve()
    if folder == here or here in folder.parents:
        sys.stderr.write(f"certs: {folder} is in the project: keys are kept elsewhere\n")
        return 2
    try:
        issued = Authority.open(folder).issue(tuple(arguments[1:]))
    except (ConfigError, ValueError) as error:
        sys.stderr.write(f"certs: {error}\n")
        return 2
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in issued.chain)
    write_atomically(folder / "cert.pem", chain, 0o644)
    write_atomically(folder / "key.pem", key_pem(issued.key), 0o600)
    sys.stdout.write(
        f"{folder / 'ca.pem'}    trust this one\n"
        f"{folder / 'cert.pem'}  for {', '.join(arguments[1:])}, until {issued.not_after:%Y-%m-%d}\n"
        f"{folder / 'key.pem'}   its key, mode 0600\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
