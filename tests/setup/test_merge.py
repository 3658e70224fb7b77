"""Merging into a user's file: what was there stays, what we want is there, and a second time nothing changes."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mxart.setup.merge import merge_hosts, merge_json, merge_toml
from mxart.setup.plan import SetupError

_KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
_PLAIN = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), _KEYS, st.lists(_KEYS, max_size=3))
_TREES: st.SearchStrategy[Any] = st.dictionaries(
    _KEYS, st.recursive(_PLAIN, lambda inner: st.dictionaries(_KEYS, inner, max_size=3), max_leaves=8), max_size=5
)
_OURS = {"registry-mirrors": ["https://hub.test"], "insecure-registries": ["images.test:8080"]}
_PLUGIN = {
    "version": 2,
    "plugins": {"io.containerd.grpc.v1.cri": {"registry": {"config_path": "/etc/containerd/certs.d"}}},
}


def _without(tree: dict[str, Any], *paths: tuple[str, ...]) -> dict[str, Any]:
    left = copy.deepcopy(tree)
    for path in paths:
        at: Any = left
        for key in path[:-1]:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.pop(path[-1], None)
    return left


@given(_TREES, st.sampled_from([None, 2, 4, "\t"]))
def test_json_keeps_what_is_not_ours(there: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(there, indent=indent)
    merged, conflicts = merge_json("daemon.json", text, _OURS)
    found = json.loads(merged)
    assert conflicts == ()
    assert list(found) == [*there, *_OURS]
    assert _without(found, *((key,) for key in _OURS)) == there
    assert {key: found[key] for key in _OURS} == _OURS
    assert merge_json("daemon.json", merged, _OURS) == (merged, ())


@given(st.lists(_KEYS, unique=True, max_size=4))
def test_lists_get_ours_in_front_and_lose_nothing(there: list[str]) -> None:
    merged, conflicts = merge_json("daemon.json", json.dumps({"registry-mirrors": there}), _OURS)
    assert json.loads(merged)["registry-mirrors"] == ["https://hub.test", *there]
    assert conflicts == ()


@pytest.mark.parametrize("indent", ["  ", "    ", "\t"])
def test_json_keeps_its_indentation(indent: str) -> None:
    text = f'{{\n{indent}"debug": true\n}}\n'
    merged, _ = merge_json("daemon.json", text, {"registry-mirrors": ["https://hub.test"]})
    assert merged.startswith(text.removesuffix("\n}\n"))
    assert f'\n{indent}"registry-mirrors"' in merged


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_file_that_is_missing_or_empty_is_made(text: str | None) -> None:
    assert json.loads(merge_json("daemon.json", text, _OURS)[0]) == _OURS
    assert tomllib.loads(merge_toml("config.toml", text, _PLUGIN)[0]) == _PLUGIN


def test_what_needs_no_change_stays_byte_for_byte() -> None:
    text = '{"insecure-registries":["images.test:8080"],\n\n   "registry-mirrors":["https://other.test","https://hub.test"]}'
    assert merge_json("daemon.json", text, _OURS) == (text, ())


@pytest.mark.parametrize("theirs", ["https://elsewhere", 1, True, {"a": 1}])
def test_another_value_is_a_conflict_that_names_the_key(theirs: object) -> None:
    merged, (conflict,) = merge_json("/etc/x.json", json.dumps({"registry-mirrors": theirs}), _OURS)
    assert (conflict.key, conflict.theirs) == ("registry-mirrors", theirs)
    assert str(conflict).startswith("/etc/x.json: registry-mirrors is ")
    assert json.loads(merged)["registry-mirrors"] == ["https://hub.test"]


@pytest.mark.parametrize("text", ['{"a": 1,}', "[]", '"text"', "{", "# not JSON"])
def test_json_that_is_none_is_left_alone(text: str) -> None:
    with pytest.raises(SetupError, match=r"daemon\.json is not .*nothing was changed"):
        merge_json("daemon.json", text, _OURS)


@settings(deadline=None)
@given(_TREES)
def test_toml_keeps_what_is_not_ours_and_every_comment(there: dict[str, Any]) -> None:
    text = "# at the top\n" + tomlkit.dumps(there) + "\n# at the end\n"
    merged, conflicts = merge_toml("config.toml", text, _PLUGIN)
    found = tomllib.loads(merged)
    assert conflicts == ()
    assert _without(found, ("version",), ("plugins",)) == there
    assert found["plugins"] == _PLUGIN["plugins"]
    assert "# at the top\n" in merged
    assert "# at the end" in merged
    assert merge_toml("config.toml", merged, _PLUGIN) == (merged, ())


_SHAPES = {
    "tables": '[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/b" # here\n',
    "indented": '[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    x = 1 # here\n  [plugins.other]\n    y = 2\n',
    "out of order": "[plugins.one]\nx = 1\n[grpc]\ny = 1 # here\n[plugins.two]\nz = 1\n",
    "split": '[plugins."io.containerd.grpc.v1.cri"]\nx = 1\n[grpc]\ny = 1 # here\n'
    '[plugins."io.containerd.grpc.v1.cri".cni]\nz = 1\n',
    "dotted": '[plugins]\n"io.containerd.grpc.v1.cri".registry.headers = {} # here\n',
    "inline": 'plugins = {"io.containerd.grpc.v1.cri" = {registry = {headers = {}}}} # here\n',
    "registry": '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "" # here\n',
}


@pytest.mark.parametrize("shape", _SHAPES)
def test_however_a_table_is_written(shape: str) -> None:
    text = "version = 2\n" + _SHAPES[shape]
    merged, conflicts = merge_toml("config.toml", text, _PLUGIN)
    found = tomllib.loads(merged)
    path = ("plugins", "io.containerd.grpc.v1.cri", "registry", "config_path")
    assert found["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["config_path"] == "/etc/containerd/certs.d"
    left = _without(found, path)
    registry = left["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    expected = _without(tomllib.loads(text), path)
    expected.setdefault("plugins", {}).setdefault("io.containerd.grpc.v1.cri", {}).setdefault("registry", registry)
    assert left == expected
    assert "# here" in merged
    assert conflicts == ()  # an empty string is what generated files say of what is not set
    assert merge_toml("config.toml", merged, _PLUGIN) == (merged, ())


_HOST = {"capabilities": ["pull", "resolve"], "ca": "/etc/ca.crt"}
_URLS = st.lists(
    st.from_regex(r"https://[a-z]{1,8}\.example(:[1-9][0-9]{1,3})?", fullmatch=True), unique=True, max_size=3
)


@given(_URLS, st.booleans(), st.booleans())
def test_ours_is_the_first_of_the_hosts(others: list[str], server: bool, header: bool) -> None:
    text = "# mine\n" + ('server = "https://up.example"\n' if server else "")
    text += "".join(f'[host."{url}"] # {url}\n  skip_verify = true\n' for url in others)
    text += '[header]\n  x = "1"\n' if header else ""
    merged, conflicts = merge_hosts("hosts.toml", text, "https://images.test", _HOST)
    found = tomllib.loads(merged)
    assert conflicts == ()
    assert re.findall(r'^\[host\."(.*?)"\]', merged, re.MULTILINE) == ["https://images.test", *others]
    assert found["host"].pop("https://images.test") == _HOST
    if not others:
        del found["host"]
    assert found == tomllib.loads(text)
    assert all(line in merged.splitlines() for line in text.splitlines())
    assert merge_hosts("hosts.toml", merged, "https://images.test", _HOST) == (merged, ())


def test_our_own_host_with_another_ca_is_a_conflict() -> None:
    text = '[host."https://images.test"]\nca = "/other.crt" # why\n'
    merged, (conflict,) = merge_hosts("hosts.toml", text, "https://images.test", _HOST)
    assert conflict.key == "host.https://images.test.ca"
    assert "# why" in merged
    assert tomllib.loads(merged)["host"]["https://images.test"] == _HOST


@pytest.mark.parametrize("text", ['host = {"https://a.example" = {}}\n', 'server = """\n[host.x]\n"""\n', "x = ["])
def test_hosts_that_cannot_be_added_to_are_left_alone(text: str) -> None:
    with pytest.raises(SetupError, match=r"hosts\.toml"):
        merge_hosts("hosts.toml", text, "https://images.test", _HOST)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"dns": ["192.0.2.1"], "dns": ["192.0.2.2"]}', 'the key "dns" is there twice'),
        ('{"a": {"b": 1, "b": 2}}', 'the key "b" is there twice'),
        ('{"a": NaN}', "there is no NaN in JSON"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_of_which_something_would_be_lost_is_refused(text: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        merge_json("daemon.json", text, _OURS)


def test_null_is_as_good_as_nothing() -> None:
    merged, conflicts = merge_json("daemon.json", '{"registry-mirrors": null}', _OURS)
    assert json.loads(merged) == _OURS
    assert conflicts == ()


@pytest.mark.parametrize("text", ['host = "x"\n', "host = 1\n"])
def test_hosts_that_are_no_table_are_told(text: str) -> None:
    with pytest.raises(SetupError, match="host is not a table"):
        merge_hosts("hosts.toml", text, "https://images.test", {})
