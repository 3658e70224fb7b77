"""Trusting the server's CA: for one client's connections to us, or for everything on a machine. Pure."""

from __future__ import annotations

from mxart.setup.facts import Server
from mxart.setup.plan import Change, Files, Plan

CERTIFICATE = "mxart.crt"
"""What the CA's certificate is called wherever a client looks for `*.crt`: the user's own stay as they are."""

# Where a distribution keeps what its administrator trusts, and what makes it known.
_STORES = (
    ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),  # Fedora, RHEL
    ("/etc/ca-certificates/trust-source/anchors", "update-ca-trust"),  # Arch
    ("/etc/pki/trust/anchors", "update-ca-certificates"),  # SUSE
    ("/usr/local/share/ca-certificates", "update-ca-certificates"),  # Debian, Alpine
)


def certificate(folder: str, server: Server) -> Plan:
    """The CA's certificate into one of a client's folders; nothing where clients need none."""
    if not server.ca:
        return Plan()
    return Plan((Change(f"{folder}/{CERTIFICATE}", server.ca, f"the CA of {server.authority}", owned=True),))


def system_store(server: Server, files: Files) -> Plan:
    """Trust by every program of a machine that asks the system, which clients do that nothing else is set for."""
    if not server.ca:
        return Plan()
    folder, command = next((store for store in _STORES if files.names(store[0]) is not None), _STORES[-1])
    path = f"{folder}/{CERTIFICATE}"
    return Plan((Change(path, server.ca, "the CA, for every program of this machine", owned=True),), (command,))


def java_notes(server: Server) -> tuple[str, ...]:
    """Java trusts what its own runtime lists: a distribution's takes that from the system, others do not."""
    if not server.ca:
        return ()
    keytool = f"keytool -importcert -noprompt -cacerts -storepass changeit -alias mxart -file {CERTIFICATE}"
    return (f"a Java that was not installed by the system's own packages is told of the CA by: {keytool}",)
