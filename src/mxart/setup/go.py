"""The go command: an environment variable for every shell, and what else there is to know. Pure.

`GOPROXY` names us and nobody behind us: a name that we refuse to look for is not to be asked for elsewhere.
"""

from __future__ import annotations

import shlex

from mxart.setup.facts import Server
from mxart.setup.plan import HEADER, Files, Plan, own_file
from mxart.setup.trust import system_store

OWN = "/etc/profile.d/mxart-go.sh"


def go(server: Server, files: Files) -> Plan:
    """Where no repository has Go modules, only that is said."""
    if not server.modules:
        there = (files.read(OWN) or "").startswith(HEADER)
        plan = own_file(files, OWN, "", "no modules are here any more") if there else Plan()
        return plan + Plan(notes=('no repository holds Go modules: add one with format = "go" and path = "/go"',))
    text = f"export GOPROXY={server.modules}\n"
    if server.sumdb:
        text += f"export GOSUMDB='{server.sumdb}'\n"
    plan = system_store(server, files) + own_file(files, OWN, text, "cmd/go asks us for modules")
    return plan + Plan(notes=tuple(_notes(server)))


def _sums(server: Server) -> list[str]:
    """What verifies modules of the team's own."""
    patterns = ",".join(server.private) or "example.com/yours"
    otherwise = f"go env -w {shlex.quote(f'GONOSUMDB={patterns}')}"
    if server.sumdb:
        return [
            f"this server's checksum database knows your own modules, too: go env -w GOSUMDB='{server.sumdb}'",
            f"to go on with Google's, which knows none of yours, leave GOSUMDB as it is: {otherwise}",
        ]
    if server.own_modules:
        return [
            "this server's checksum database, which knows your own modules, has no key before the server first starts",
            "then run this again where its data is, for the GOSUMDB that goes with it",
            f"until then no checksum database knows them: {otherwise}",
        ]
    return [f"the checksum database does not know modules of your own: {otherwise}"]


def _notes(server: Server) -> list[str]:
    notes = [
        f"for one user, or where no shell reads {OWN}: go env -w GOPROXY={server.modules}",
        *_sums(server),
        "GOPRIVATE and GONOPROXY would lead the go command past this server: leave them empty for what is here",
    ]
    if server.is_plain:
        return [*notes, "over plain http the go command shows nobody's password: modules that need one need https"]
    notes.append(f"with a user, in ~/.netrc (mode 600): machine {server.authority} login USER password TOKEN")
    if server.authority != server.host:
        notes.append(f"some Go before 1.21 wants no port in that line: machine {server.host} login USER password TOKEN")
    return notes
