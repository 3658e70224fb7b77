"""What is planned for each client, what stands in its way, and that a plan carried out leaves nothing to plan."""

from __future__ import annotations

import json
import tomllib

import pytest

from kit.settings import Kept, configured
from mxart.config import Config
from mxart.setup.clients import CLIENTS
from mxart.setup.facts import Server, server
from mxart.setup.plan import Plan, SetupError

_CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
_OWN = (
    '[repository.hub]\nformat = "oci"\nkind = "proxy"\nupstream = "https://registry-1.docker.io"\npath = "/docker.io"\n'
)
_OWN += 'hosts = ["docker.io", "hub.test"]\n'


@pytest.fixture
def config() -> Config:
    return configured(_OWN)


@pytest.fixture
def secure(config: Config) -> Server:
    return server(config, "https://images.test:8443", _CA)


@pytest.fixture
def plain(config: Config) -> Server:
    return server(config, "http://images.test:8080", _CA)


def _content(plan: Plan, path: str) -> str:
    (found,) = [change.content for change in plan.changes if change.path == path]
    return found


def _paths(plan: Plan) -> list[str]:
    return [change.path for change in plan.changes]


@pytest.mark.parametrize("mode", ["mirror", "transparent", "proxy"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("url", ["https://images.test:8443", "http://images.test:8080", "http://127.0.0.1:8080"])
def test_a_plan_that_is_carried_out_leaves_nothing_to_change(config: Config, client: str, mode: str, url: str) -> None:
    found = server(config, url, _CA)
    start = Kept({"/etc/docker/daemon.json": '{"debug": true}', "/etc/containerd/config.toml": "version = 2\n"})
    plan = CLIENTS[client].plan(mode, found, start)  # type: ignore[arg-type]
    done = start.after(plan)
    again = CLIENTS[client].plan(mode, found, done)  # type: ignore[arg-type]
    assert plan.conflicts == again.conflicts == ()
    assert done.after(again) == done
    for path, text in done.items():
        if path.endswith((".toml", "registries.conf.d/mxart.conf")):
            tomllib.loads(text)
        elif path.endswith(".json"):
            json.loads(text)


def test_without_tls_nobody_is_asked_to_trust_a_ca(plain: Server) -> None:
    for client in CLIENTS.values():
        for mode in ("mirror", "transparent", "proxy"):
            assert _CA not in Kept().after(client.plan(mode, plain, Kept())).values()  # type: ignore[arg-type]


def test_docker_gets_a_mirror_of_docker_hub_and_keeps_its_own(secure: Server) -> None:
    there = Kept({"/etc/docker/daemon.json": '{"debug": true, "registry-mirrors": ["https://old.test/"]}'})
    plan = CLIENTS["docker"].plan("mirror", secure, there)
    assert json.loads(_content(plan, "/etc/docker/daemon.json")) == {
        "debug": True,
        "registry-mirrors": ["https://hub.test:8443", "https://old.test/"],
    }
    assert plan.commands == ("systemctl reload docker",)
    for name in ("images.test:8443", "hub.test:8443"):
        assert _content(plan, f"/etc/docker/certs.d/{name}/mxart.crt") == _CA


def test_docker_shows_the_same_mirror_with_a_slash(secure: Server) -> None:
    there = Kept({"/etc/docker/daemon.json": '{"registry-mirrors": ["https://hub.test:8443/"]}'})
    plan = CLIENTS["docker"].plan("mirror", secure, there)
    assert "/etc/docker/daemon.json" not in _paths(plan)
    assert plan.commands == ()


def test_docker_is_told_of_plain_http_but_on_the_loopback(config: Config, plain: Server) -> None:
    text = _content(CLIENTS["docker"].plan("mirror", plain, Kept()), "/etc/docker/daemon.json")
    assert json.loads(text)["insecure-registries"] == ["images.test:8080"]
    loopback = CLIENTS["docker"].plan("mirror", server(config, "http://127.0.0.1:8080"), Kept())
    assert "insecure-registries" not in _content(loopback, "/etc/docker/daemon.json")


def test_without_a_name_for_docker_hub_the_user_is_told_how_to_give_it_one() -> None:
    plan = CLIENTS["docker"].plan("mirror", server(configured(""), "https://images.test", _CA), Kept())
    assert "/etc/docker/daemon.json" not in _paths(plan)
    assert any('[repository."docker.io"] hosts = [..., "hub.example.com"]' in note for note in plan.notes)
    assert any("no mirrors of gcr.io, ghcr.io" in note for note in plan.notes)


@pytest.mark.parametrize("path", ["/etc/default/docker", "/etc/systemd/system/docker.service.d/x.conf"])
def test_docker_does_not_start_with_a_flag_and_a_key_for_the_same(secure: Server, path: str) -> None:
    there = Kept({path: "# --registry-mirror\nDOCKER_OPTS='--registry-mirror=https://old.test'\n"})
    with pytest.raises(SetupError, match=f"{path} has --registry-mirror"):
        CLIENTS["docker"].plan("mirror", secure, there)
    CLIENTS["docker"].plan("mirror", secure, Kept({path: "# --registry-mirror=https://old.test\n"}))


@pytest.mark.parametrize("client", ["podman", "skopeo", "buildah"])
def test_podman_and_its_kin_get_a_drop_in(secure: Server, client: str) -> None:
    plan = CLIENTS[client].plan("mirror", secure, Kept())
    found = tomllib.loads(_content(plan, "/etc/containers/registries.conf.d/mxart.conf"))
    mirror = {"location": "images.test:8443/docker.io"}
    assert found == {"registry": [{"prefix": "docker.io", "location": "docker.io", "mirror": [mirror]}]}
    assert _content(plan, "/etc/containers/certs.d/images.test:8443/mxart.crt") == _CA


def test_a_registry_that_the_user_has_set_up_is_a_conflict(secure: Server) -> None:
    theirs = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "old.test"\n'
    plan = CLIENTS["podman"].plan("mirror", secure, Kept({"/etc/containers/registries.conf": theirs}))
    (conflict,) = plan.conflicts
    assert str(conflict).startswith("/etc/containers/registries.conf: [[registry]] docker.io is {")
    later = Kept({"/etc/containers/registries.conf.d/zz.conf": theirs})
    with pytest.raises(SetupError, match=r"zz\.conf has a \[\[registry\]\] for docker\.io, and is read after"):
        CLIENTS["podman"].plan("mirror", secure, later)


def test_a_registries_conf_of_version_1_is_refused(secure: Server) -> None:
    there = Kept({"/etc/containers/registries.conf": '[registries.search]\nregistries = ["docker.io"]\n'})
    with pytest.raises(SetupError, match="version 1"):
        CLIENTS["podman"].plan("mirror", secure, there)


def test_a_file_by_our_name_that_we_did_not_write_is_a_conflict(secure: Server) -> None:
    there = Kept({"/etc/containers/registries.conf.d/mxart.conf": "# my own\n"})
    plan = CLIENTS["podman"].plan("mirror", secure, there)
    assert [str(conflict) for conflict in plan.conflicts] == [
        "/etc/containers/registries.conf.d/mxart.conf is there already and was not written by mxart"
    ]
    assert not plan.changes[-1].owned  # so a copy is kept


def test_containerd_gets_a_hosts_toml_a_registry(secure: Server, plain: Server) -> None:
    path = "/etc/containerd/certs.d/docker.io/hosts.toml"
    found = tomllib.loads(_content(CLIENTS["containerd"].plan("mirror", secure, Kept()), path))
    ca = "/etc/containerd/certs.d/images.test:8443/mxart.crt"
    assert found == {"host": {"https://images.test:8443": {"capabilities": ["pull", "resolve"], "ca": ca}}}
    plan = CLIENTS["containerd"].plan("mirror", plain, Kept())
    assert "/etc/containerd/certs.d/images.test:8080/hosts.toml" in _paths(plan)
    older = Kept({"/etc/containerd/certs.d/images.test_8080_/hosts.toml": 'server = "http://images.test:8080"\n'})
    plan = CLIENTS["containerd"].plan("mirror", plain, older)
    assert "/etc/containerd/certs.d/images.test_8080_/hosts.toml" in _paths(plan)


@pytest.mark.parametrize(
    ("text", "table", "value"),
    [
        (None, "io.containerd.grpc.v1.cri", "/etc/containerd/certs.d"),
        ("version = 2\n", "io.containerd.grpc.v1.cri", "/etc/containerd/certs.d"),
        ("version = 3\n", "io.containerd.cri.v1.images", "/etc/containerd/certs.d:/etc/docker/certs.d"),
    ],
)
def test_cri_is_told_where_hosts_are(secure: Server, text: str | None, table: str, value: str) -> None:
    there = Kept({} if text is None else {"/etc/containerd/config.toml": text})
    plan = CLIENTS["cri"].plan("mirror", secure, there)
    found = tomllib.loads(_content(plan, "/etc/containerd/config.toml"))
    assert found["plugins"] == {table: {"registry": {"config_path": value}}}
    assert plan.commands == ("systemctl restart containerd",)


def test_cri_is_given_hosts_where_it_looks_for_them_already(secure: Server) -> None:
    text = (
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/opt/hosts:/etc/docker/certs.d"\n'
    )
    plan = CLIENTS["cri"].plan("mirror", secure, Kept({"/etc/containerd/config.toml": text}))
    assert _paths(plan) == ["/opt/hosts/images.test:8443/mxart.crt", "/opt/hosts/docker.io/hosts.toml"]
    assert plan.commands == ()


@pytest.mark.parametrize(
    "text",
    [
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["https://a"]\n',
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.configs."a".tls]\nca_file = "/a"\n',
    ],
)
def test_cri_does_not_start_with_both_ways_of_mirrors(secure: Server, text: str) -> None:
    with pytest.raises(SetupError, match="containerd refuses them beside config_path"):
        CLIENTS["cri"].plan("mirror", secure, Kept({"/etc/containerd/config.toml": text}))


@pytest.mark.parametrize("text", ['disabled_plugins = ["cri"]\n', "version = 1\n"])
def test_cri_of_an_old_configuration_is_refused(secure: Server, text: str) -> None:
    with pytest.raises(SetupError, match="of version 1"):
        CLIENTS["cri"].plan("mirror", secure, Kept({"/etc/containerd/config.toml": text}))


def test_cri_tells_of_what_may_undo_it(secure: Server) -> None:
    text = 'version = 2\nimports = ["conf.d/*.toml"]\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    notes = " ".join(CLIENTS["cri"].plan("mirror", secure, Kept({"/etc/containerd/config.toml": text})).notes)
    assert "imports conf.d/*.toml" in notes
    assert "disables the CRI plugin" in notes


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
        ("/usr/local/share/ca-certificates", "update-ca-certificates"),
    ],
)
def test_transparent_is_trust_alone_where_the_distribution_keeps_it(secure: Server, folder: str, command: str) -> None:
    plan = CLIENTS["docker"].plan("transparent", secure, Kept({f"{folder}/other.crt": "x"}))
    assert _paths(plan) == [f"{folder}/mxart.crt"]
    assert plan.commands == (command, "systemctl restart docker")
    assert plan.notes == ("DNS or a firewall has to lead these names here: docker.io, hub.test",)


def test_a_daemon_behind_our_proxy_gets_variables_and_trust(secure: Server) -> None:
    plan = CLIENTS["docker"].plan("proxy", secure, Kept())
    text = _content(plan, "/etc/systemd/system/docker.service.d/mxart-proxy.conf")
    assert 'Environment="HTTPS_PROXY=https://images.test:8443"\n' in text
    assert 'Environment="NO_PROXY=localhost,127.0.0.1,::1,images.test"\n' in text
    assert plan.commands == ("update-ca-certificates", "systemctl daemon-reload", "systemctl restart docker")


@pytest.mark.parametrize(
    ("client", "path", "text"),
    [
        ("podman", "/etc/containers/registries.conf.d/00.conf", 'registry = ["x"]\n'),
        ("podman", "/etc/containers/registries.conf", '[[registry]]\nprefix = "docker.io"\nmirror = ["x"]\n'),
        ("containerd", "/etc/containerd/certs.d/docker.io/hosts.toml", 'host = "x"\n'),
        ("cri", "/etc/containerd/config.toml", "version = 2\nplugins = 3\n"),
        (
            "cri",
            "/etc/containerd/config.toml",
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfigs = { a = 3 }\n',
        ),
    ],
)
def test_settings_of_another_shape_are_told_with_their_file(secure: Server, client: str, path: str, text: str) -> None:
    with pytest.raises(SetupError, match=path):
        CLIENTS[client].plan("mirror", secure, Kept({path: text}))


def test_registries_that_are_served_no_longer_lose_their_mirror(secure: Server) -> None:
    podman = CLIENTS["podman"]
    machine = Kept().after(podman.plan("mirror", secure, Kept()))
    nothing = configured('[repository.mine]\nformat = "oci"\nkind = "local"\npath = "/"\n')
    after = podman.plan("mirror", server(nothing, secure.url, _CA), machine)
    assert "docker.io" not in _content(after, "/etc/containers/registries.conf.d/mxart.conf")
    assert len(podman.plan("mirror", server(nothing, secure.url, _CA), Kept()).changes) == 1, (
        "and none is made for that"
    )


def test_what_an_earlier_setup_left_in_hosts_is_told(secure: Server, config: Config) -> None:
    folder = "/etc/containerd/certs.d"
    machine = Kept({f"{folder}/gone.test/hosts.toml": f'[host."{secure.url}"]\n', f"{folder}/broken/hosts.toml": "["})
    before = server(config, "https://before.test", _CA)
    machine = machine.after(CLIENTS["containerd"].plan("mirror", before, machine))
    notes = CLIENTS["containerd"].plan("mirror", secure, machine).notes
    assert any("gone.test/hosts.toml asks https://images.test:8443" in note for note in notes)
    assert any("docker.io/hosts.toml still has https://before.test" in note for note in notes)


def test_dockers_own_file_is_the_last_so_that_an_interrupted_setup_still_tells_to_reload(plain: Server) -> None:
    assert _paths(CLIENTS["docker"].plan("mirror", plain, Kept()))[-1] == "/etc/docker/daemon.json"
