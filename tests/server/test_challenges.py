"""How a client of a registry is told what to ask a token for."""

from __future__ import annotations

import pytest

from kit.wire import PEER
from mxart.access.base import Denied, LoginWanted
from mxart.message import Headers, Request
from mxart.server.challenges import Challenges


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        ("/v2/app/blobs/uploads/?mount=x&from=base", "repository:app:pull,push repository:base:pull"),
        ("/v2/team/app/blobs/uploads/?mount=x", "repository:team/app:pull,push repository:team/base:pull"),
        ("/v2/elsewhere/blobs/uploads/?mount=x", "repository:elsewhere:pull,push"),
    ],
)
def test_a_mount_needs_a_token_for_both_under_the_names_that_the_client_uses(target: str, scope: str) -> None:
    request = Request("POST", target, "registry.test", Headers(), PEER)
    refused = LoginWanted("", Denied("read", "own", "base"), error="insufficient_scope", beside="app")
    told = Challenges().oci(request, None, refused)
    assert f'scope="{scope}"' in told
    assert told.endswith('error="insufficient_scope"')
