"""A wrong configuration is refused with its place and what would be right; a right one means what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.config import Config, Listener, parse_address, parse_duration, parse_size
from mxart.config_file import decode
from mxart.errors import ConfigError


def load(text: str, **options: object) -> Config:
    environment = {"SECRET": "s3cret"}
    return decode(text, file="mxart.toml", environment=environment, **options)  # type: ignore[arg-type]


def test_no_configuration_at_all_serves_the_six_registries_and_a_local_one() -> None:
    config = load("")
    assert set(config.repositories) == {
        "docker.io", "gcr.io", "k8s.gcr.io", "ghcr.io", "quay.io", "registry.k8s.io", "oci",
        "go", "go-local", "go-proxy", "maven", "maven-releases", "maven-snapshots", "maven-central",
    }  # fmt: skip
    assert config.repositories["docker.io"].hosts == ("docker.io", "registry-1.docker.io", "index.docker.io")
    assert config.repositories["docker.io"].path == "/docker.io"
    assert config.repositories["oci"].path == "/"
    assert config.listeners == (Listener(address="127.0.0.1:8080"),)
    assert config.data.name == "mxart-data"
    assert config.workers >= 1


def test_the_command_line_wins_over_the_file() -> None:
    config = load(
        'data = "a"\nworkers = 7\n[[listener]]\naddress = ":1"', data="b", workers=2, listen=(":2",), tls=True
    )
    assert config.data.name == "b"
    assert config.workers == 2
    assert config.listeners == (Listener(address=":2", tls=True),)


def test_variables_of_the_environment_are_put_in() -> None:
    text = (
        '[repository.x]\nformat="oci"\nkind="proxy"\nupstream="https://r.example"\nusername="u"\npassword="${SECRET}"'
    )
    assert load(text).repositories["x"].password == "s3cret"


PROXY = '[repository.hub]\nformat="oci"\nkind="proxy"\nupstream="https://r.example"\n'
MODULES = "[repository.modules]\nformat='go'\nkind='proxy'\nupstream='https://proxy.golang.org'\n"
LOCAL = '[repository.mine]\nformat="oci"\nkind="local"\n'
DEPLOYS = (
    "[repository.r]\nformat='maven'\nkind='local'\npolicy='releases'\nstaging=true\n"
    "[repository.s]\nformat='maven'\nkind='local'\npolicy='snapshots'\n"
)
DEPLOYED = DEPLOYS + "[repository.all]\nformat='maven'\nkind='group'\nmembers=['r','s']\n"
CENTRAL = "[repository.central]\nformat='maven'\nkind='proxy'\nupstream='https://r.example'\n"
GROUP = "\n[repository.g]\nformat='oci'\nkind='group'\nmembers=['mine']\n"
OUTER = "\n[repository.outer]\nformat='oci'\nkind='group'\nmembers=['g']\n"


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("nonsense = 1", "nonsense", "unknown key"),
        ("[[permission]]\nusers=['ann']", "permission[0]", "missing required field `actions`"),
        ("[[permission]]\nusers=['ann']\nactions=['reed']", "permission[0].actions", "read, fetch, publish"),
        ("[[permission]]\nusers=['ann']\nactions=[]", "permission[0].actions", "actions = ["),
        ("[[permission]]\nactions='read'", "permission[0]", 'groups = "anonymous"'),
        ("[[permission]]\nuser='ann'\nactions='read'", "permission[0]", "known here: actions, repository, path, users"),
        ("[[permission]]\nusers='Ann B'\nactions='read'", "permission[0].users", "a-z 0-9"),
        ("[[permission]]\nusers='anonymous'\nactions='read'", "permission[0].users", 'groups = "anonymous"'),
        ("[[permission]]\nusers='ann'\nactions='read'\npath='/a'", "permission[0].path", "without a slash at its ends"),
        ("[[permission]]\nusers='ann'\nactions='read'\nrepository='no'", "permission[0].repository", "[repository.no]"),
        ("[[permission]]\nusers='ann'\nactions='read'\nrepository=[]", "permission[0].repository", "for all of them"),
        ("[[permission]]\nusers='ann'\nactions='read'\neffect='forbid'", "permission[0].effect", "allow, deny"),
        ("[access]\nurl='https://a/b'", "access.url", "without a path"),
        ("[access]\nurl='https://u:p@a'", "access.url", "no password"),
        ("[access]\naudit_bytes='big'", "access.audit_bytes", "512MiB"),
        ("[[listener]]\naddres=':1'", "listener[0]", "addres"),
        ("[[listener]]\naddress='nowhere'", "listener[0].address", "127.0.0.1:8080"),
        ("[[listener]]\naddress=':99999'", "listener[0].address", "65535"),
        ("[[listener]]\naddress=':1'\n[[listener]]\naddress=':1'", "listener[1].address", "listener[0]"),
        (PROXY + "max_bytes = '10 apples'", "repository.hub.max_bytes", "512MiB"),
        (PROXY + "quota = '10GiB'", "repository.hub.quota", "here it is max_bytes"),
        (LOCAL + "quota = -1", "repository.mine.quota", "not negative"),
        (LOCAL + "max_bytes = 1", "repository.mine.max_bytes", "here it is quota"),
        (PROXY + "retention = [{keep = 1}]", "repository.hub.retention", "a local repository"),
        (LOCAL + "retention = [{tags = 'v*'}]", "repository.mine.retention[0]", "keep = 10, days = 30"),
        (LOCAL + "retention = [{keep = 1}, {keep = 1, tags = []}]", "repository.mine.retention[1].tags", '"v*"'),
        (LOCAL + "retention = [{keep = 1, packages = '/a'}]", "repository.mine.retention[0].packages", "team/**"),
        (LOCAL + "retention = [{keep = -1}]", "repository.mine.retention[0].keep", ">= 0"),
        ("[gc]\nevery = 'daily'", "gc.every", '"24h"'),
        ("[gc]\ngrace = -1", "gc.grace", "not negative"),
        ("[go]\nsumdb_name = 'Sum Example'", "go.sumdb_name", "as of a host"),
        ("[go]\nsumdb_name = 'sum.example.com/'", "go.sumdb_name", "as of a host"),
        ("[go]\nsumdb_name = 'sum.golang.org'", "go.sumdb_name", "choose your own"),
        (LOCAL + "modules=['example.com']", "repository.mine.modules", "Go modules"),
        ("listener = 5", "listener", "[[listener]]"),
        ("[repository]\nx = 5", "repository.x", "object"),
        (PROXY + "ttl='1h'", "repository.hub.ttl", "float"),
        (PROXY + "colour=1", "repository.hub", "known here"),
        ("[repository.BAD]\nformat='oci'\nkind='local'", "repository.BAD", "str"),
        ("[repository.x]\nformat='npm'\nkind='local'", "repository.x.format", "npm"),
        ("[repository.x]\nformat='oci'\nkind='proxy'", "repository.x.upstream", "needs an upstream"),
        ("[repository.x]\nformat='oci'\nkind='proxy'\nupstream='ftp://r'", "repository.x.upstream", "https://host"),
        (LOCAL + "upstream='https://r'", "repository.mine.upstream", "no upstream"),
        (LOCAL + "members=['a']", "repository.mine.members", "no members"),
        (LOCAL + "path='x'", "repository.mine.path", "write"),
        (LOCAL + "path='/-/x'", "repository.mine.path", "own"),
        (LOCAL + "hosts=['UPPER.example']", "repository.mine.hosts[0]", "lower case"),
        (LOCAL + "store='ssd'", "repository.mine.store", "store.ssd"),
        (PROXY + "username='u'", "repository.hub.password", "go together"),
        (PROXY + "username='u'\npassword='p'\npassword_file='f'", "repository.hub.password_file", "not both"),
        (PROXY + "proxy='gopher://x:1'", "repository.hub.proxy", "socks5"),
        ("[repository.g]\nformat='oci'\nkind='group'", "repository.g.members", "needs members"),
        ("[repository.g]\nformat='oci'\nkind='group'\nmembers=['no']", "repository.g.members[0]", "repository.no"),
        (LOCAL + "publish_to='mine'", "repository.mine.publish_to", "stays in it"),
        (PROXY + "publish_to='mine'", "repository.hub.publish_to", "takes nothing"),
        (LOCAL + GROUP + "publish_to='no'", "repository.g.publish_to", "no [repository.no]"),
        (
            LOCAL + GROUP + "publish_to='other'\n[repository.other]\nformat='oci'\nkind='local'",
            "g.publish_to",
            "members",
        ),
        (PROXY + GROUP.replace("mine", "hub") + "publish_to='hub'", "repository.g.publish_to", "is a proxy"),
        (LOCAL + GROUP + OUTER + "publish_to='g'", "repository.outer.publish_to", "no publish_to itself"),
        (DEPLOYED + "publish_to=['r', 'r']", "repository.all.publish_to[1]", "named twice"),
        (
            LOCAL
            + LOCAL.replace("mine", "too")
            + GROUP.replace("['mine']", "['mine','too']")
            + "publish_to=['mine', 'too']",
            "repository.g.publish_to",
            "name one member",
        ),
        (DEPLOYED + "publish_to=['r', 'x']", "repository.all.publish_to[1]", "no [repository.x]"),
        (DEPLOYED + "policy='releases'", "repository.all.policy", "this is a group of maven"),
        (LOCAL + "policy='snapshots'", "repository.mine.policy", "this is a local of oci"),
        (CENTRAL + "staging=true", "repository.central.staging", "this is a proxy of maven"),
        (
            DEPLOYS + "retention=[{untagged_days=7,keep=2}]",
            "s.retention[0].untagged_days",
            "only images may have no tag",
        ),
        (CENTRAL + "retention=[{keep=2}]", "repository.central.retention", "a local repository"),
        (DEPLOYS + "private=['com.example.*']", "repository.s.private", "this is a local of maven"),
        (CENTRAL + "policy='all'", "repository.central.policy", "all"),
        (CENTRAL + "path='/v2/maven'", "repository.central.path", "another first element"),
        (CENTRAL + "sumdb='off'", "repository.central.sumdb", "Go modules"),
        (PROXY + "path='/a'\n" + LOCAL + "path='/a'", "repository.mine.path", "repository hub"),
        (PROXY + "path='/a'\n" + LOCAL + "path='/a/b'", "repository.mine.path", "repository hub"),
        (PROXY + "hosts=['a.example']\n" + LOCAL + "hosts=['a.example']", "repository.mine.hosts", "repository hub"),
        (LOCAL + "hosts=['a.example']\n[[tunnel]]\nsni=['a.example']", "tunnel[0].sni", "repository mine"),
        (MODULES + "path='/v2/go'", "repository.modules.path", "another first element"),
        (MODULES + "path='/v1'", "repository.modules.path", "another first element"),
        (MODULES + "relay='denied'", "repository.modules.relay", "to registries only"),
        (PROXY + "sumdb='off'", "repository.hub.sumdb", "a proxy of Go modules"),
        (LOCAL + "private=['a.example']", "repository.mine.private", "a proxy of go or maven"),
        (MODULES + "index='https://a'", "repository.modules.index", "this one holds go"),
        (MODULES + GROUP.replace("mine", "modules"), "repository.g.members[0]", "modules holds go, this group oci"),
        (MODULES + "path='/'\n" + LOCAL + "path='/'", "repository.mine.path", "repository modules"),
        ("[repository.m]\nformat='go'\nkind='local'\nretention=[{keep=1}]", "repository.m.retention", "go has none"),
        ("[[tunnel]]\nlisten=':1'", "tunnel[0].to", "target"),
        ("[[tunnel]]\nto='a:1'", "tunnel[0]", "give one of"),
        ("[[tunnel]]\nnetworks=['10.0.0.1/8']", "tunnel[0].networks[0]", "write a network"),
        ("[[tunnel]]\nnetworks=['10.0.0.0/8']\nto='a:1'", "tunnel[0].to", "no other target"),
        ("[[tunnel]]\nsni=['a.b']\nports=[22]", "tunnel[0].ports", "ports belong to networks"),
        ("[replicate]\ntargets=['registry.example']", "replicate.targets[0]", "write https://host"),
        ("[replicate]\ntargets=['https://a.b/team']", "replicate.targets[0]", "write https://host"),
        ("[replicate]\ntargets=['https://me:pw@a.b']", "replicate.targets[0]", "write https://host"),
        ("[replicate]\ntargets=['https://a.b', 'http://a.b:123456']", "replicate.targets[1]", "write https://host"),
        ("[replicate]\ntarget='https://a.b'", "replicate", "known here: targets, ca_file"),
        ("[token_server]\nhosts=['a.b']\n[[tunnel]]\nsni=['a.b']", "tunnel[0].sni", "belongs to token_server"),
        ("[dns]", "dns.answer", "which address is ours"),
        ("[dns]\nanswer=['x']", "dns.answer[0]", "not an IP address"),
        ("[dns]\nanswer=['10.0.0.1']\nforward=['dns.example']", "dns.forward[0]", "not the address of a DNS server"),
        ("[dns]\nanswer=['10.0.0.1']\nclients=['all']", "dns.clients[0]", "write a network"),
        ("[tls]\nca_cert='a.pem'", "tls.ca_key", "go together"),
        ("[tls]\nca_domains=['*.b']", "tls.ca_domains[0]", "not a domain"),
        ("[upstreams.proxy_for]\n'a.b'='ftp://x'", "upstreams.proxy_for.a.b", "is not a proxy"),
        ("[[listener]]\naddress=':1'\ntransparent=true\nproxy_protocol=true", "listener[0].proxy_protocol", "no PROXY"),
        ("[repository.a]\nformat='oci'\nkind='local'\nrelay='always'", "repository.a.relay", "no upstream to relay"),
        ("[[tunnel]]\nsni=['a']\n[[tunnel]]\nsni=['a']", "tunnel[1].sni", "tunnel[0]"),
        ("[limits]\nbody_bytes='ten'", "limits.body_bytes", "10GiB"),
        ("[limits]\nheader_bytes=1", "limits.header_bytes", "4096"),
        (PROXY + "password='${NOPE}'", "repository.hub.password", "NOPE"),
        ("x = [", "mxart.toml", ""),
    ],
)
def test_a_fault_names_its_place_and_what_would_be_right(text: str, place: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(text)
    assert str(error.value).startswith("mxart.toml")
    assert place in str(error.value)
    assert why in str(error.value)


def test_a_cycle_of_groups_is_refused_with_its_way() -> None:
    group = '[repository.{}]\nformat="oci"\nkind="group"\nmembers=["{}"]\n'
    with pytest.raises(ConfigError, match="a → b → c → a"):
        load(group.format("a", "b") + group.format("b", "c") + group.format("c", "a"))


def test_a_group_publishes_to_a_local_member_or_to_a_groups() -> None:
    config = load(LOCAL + GROUP + "publish_to='mine'" + OUTER + "publish_to='g'")
    assert [config.repositories[name].targets for name in ("mine", "g", "outer")] == [(), ("mine",), ("g",)]


def test_a_group_of_maven_has_a_member_for_releases_and_one_for_snapshots() -> None:
    text = DEPLOYS + "[repository.all]\nformat='maven'\nkind='group'\nmembers=['r','s']\npublish_to=['s','r']\n"
    assert load(text).repositories["all"].targets == ("s", "r")
    config = load("")
    assert config.repositories["maven"].targets == ("maven-releases", "maven-snapshots")
    assert all(config.repositories[f"maven-{policy}"].policy == policy for policy in ("releases", "snapshots"))


def test_a_root_path_beside_longer_ones_is_no_overlap() -> None:
    assert load(PROXY + "path='/hub'\n" + LOCAL + "path='/'").repositories["mine"].path == "/"


@given(st.integers(0, 2**50), st.sampled_from(["", "B", "K", "KB", "KiB"]))
def test_sizes_read_as_written(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * (1024 if unit.startswith("K") else 1)


@given(st.text(max_size=20))
def test_any_address_is_taken_or_refused_with_a_reason(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        pass
    else:
        assert 0 <= port <= 65535
        assert "[" not in host


def test_our_own_dns_does_not_lead_us_to_ourselves() -> None:
    table = '[dns]\nanswer = ["10.0.0.5"]\nforward = ["10.9.9.9"]\n'
    assert decode(table, file="f", environment={}).upstreams.nameservers == ("10.9.9.9",)
    other = table + '[upstreams]\nnameservers = ["10.8.8.8"]\n'
    assert decode(other, file="f", environment={}).upstreams.nameservers == ("10.8.8.8",)


def test_a_host_of_the_token_server_is_no_tunnel_by_default() -> None:
    config = decode('[token_server]\nhosts = ["auth.docker.io"]\n', file="x", environment={})
    assert [name for tunnel in config.tunnels for name in tunnel.sni] == [
        "hub.docker.com",
        "login.docker.com",
        "auth.docker.com",
    ]
    assert config.repositories


def test_permissions_are_written_as_lists_or_as_one_word() -> None:
    one, several = decode(
        """
        [[permission]]
        groups = "anonymous"
        actions = "read"
        effect = "deny"
        [[permission]]
        repository = ["oci", "ghcr.io"]
        path = "team/**"
        users = ["ann", "bob"]
        groups = ["core"]
        actions = ["publish", "delete"]
        """,
        file="mxart.toml",
        environment={},
    ).permissions
    assert (one.repositories, one.path, one.user_names, one.group_names) == (None, "**", (), ("anonymous",))
    assert (one.action_names, one.effect) == ({"read"}, "deny")
    assert (several.repositories, several.path, several.user_names) == (("oci", "ghcr.io"), "team/**", ("ann", "bob"))
    assert (several.action_names, several.effect) == ({"publish", "delete"}, "allow")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90), (0.5, 0.5), ("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86400), ("1d12h", 129600), ("2w", 1209600)],
)
def test_a_time_is_seconds_or_a_number_with_its_unit(value: float | str, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "h", "1.5h", "1h30", "-1h", "1y", -1, float("inf"), float("nan"), "1 2"])
def test_what_is_no_time_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_duration(value)
