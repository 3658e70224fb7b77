"""A real client through the tunnel: the name decides, byte for byte, on the port that also serves."""

from __future__ import annotations

from pathlib import Path

from kit.clients import Skopeo
from kit.netns import World
from kit.pulls import hub
from kit.registry import Images, Registry, running
from kit.servers import mxart


def test_a_listed_name_is_passed_through_untouched_on_the_same_port(
    filled: Path, images: Images, inner: Registry, redirected: World, room: Path, certified: tuple[Path, Path, Path]
) -> None:
    """Docker Hub's name is answered by our certificate, the other by its own registry's, both on 443."""
    authority, certificate, key = certified
    config = hub(inner) + '[[tunnel]]\nsni = ["passed.test"]\nto = "127.0.0.2:443"\n'
    real = Registry(filled, room / "passed", inside=redirected, address="127.0.0.2", certificate=(certificate, key))
    listen = ["127.0.0.1:443"]
    with (
        running(real),
        mxart(room / "mxart", config, listen=listen, tls=True, within=redirected.enter) as server,
    ):
        passed = Skopeo(room / "passed-client", redirected, ca=authority)
        assert passed.pull_all("passed.test/library/tool:1.0") == images.index.data
        served = Skopeo(room / "served-client", redirected, ca=server.ca)
        assert served.pull_all("docker.io/library/tool:1.0") == images.index.data
        assert inner.asked() != []
        log = server.log()
    assert '"sni":"passed.test"' in log
