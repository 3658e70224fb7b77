"""URLs, logins and what git says: what is taken, what is refused, and what is never shown."""

from __future__ import annotations

from base64 import b64encode

import pytest

from mxart.errors import NotFound, StorageFull, UpstreamDenied, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from mxart.git import netrc
from mxart.git.failures import Cause, GitFailed, GitSilent, TooMuch, said
from mxart.git.logins import Login, Logins, host_options, settings, ssh_config
from mxart.git.references import References
from mxart.git.trees import parse_commit, parse_tree
from mxart.git.url import GitUrl

# URLs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://Git.Example.com/Team/app.git", "https://git.example.com/Team/app.git"),
        ("https://git.example.com:443/app", "https://git.example.com/app"),
        ("https://git.example.com:8443/app", "https://git.example.com:8443/app"),
        ("ssh://git@git.example.com/app", "ssh://git@git.example.com/app"),
        ("git+ssh://git@git.example.com:2222/~ann/app", "ssh://git@git.example.com:2222/~ann/app"),
        ("http://10.0.0.7/app", "http://10.0.0.7/app"),
        ("https://[::1]:8443/app", "https://[::1]:8443/app"),
    ],
)
def test_urls_of_repositories_are_read(text: str, shown: str) -> None:
    assert str(GitUrl.parse(text)) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file:///etc", "that is used here"),
        ("ext::sh -c touch% /tmp/x", "that is used here"),
        ("git://git.example.com/app", "that is used here"),
        ("--upload-pack=touch /tmp/x", "that is used here"),
        ("git@git.example.com:app.git", "that is used here"),
        ("/srv/git/app", "that is used here"),
        ("https://ann:secret@git.example.com/app", "go into a login"),
        ("https://ann@git.example.com/app", "go into a login"),
        ("ssh://git:secret@git.example.com/app", "go into a login"),
        ("ssh://-oProxyCommand=x/app", "no host name"),
        ("ssh://-oProxyCommand=x@git.example.com/app", "no user of ssh's"),
        ("https:///app", "no host name"),
        ("https://git.example.com", "names no path"),
        ("https://git.example.com/", "names no path"),
        ("https://git.example.com/a b", "names no path"),
        ("https://git.example.com/app?x=1", "names no path"),
        ("https://git.example.com/a/../b", "no . and .."),
        ("https://git.example.com:99999/app", "no URL"),
        ("ssh://git@git.example.com/app;touch", "names no path"),
    ],
)
def test_nothing_else_gets_into_a_command(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        GitUrl.parse(text)
    assert "secret" not in str(caught.value)


# logins


def test_a_host_has_the_login_that_says_most_about_it() -> None:
    everybody, domain, one = Login(("*",), token="a"), Login(("*.corp.test",), token="b"), Login(("git.corp.test",))
    logins = Logins([everybody, domain, one])
    assert logins.of("git.corp.test") is one
    assert logins.of("x.corp.test") is domain
    assert logins.of("corp.test") is everybody
    assert Logins([one]).of("other.test").basic("other.test", "other.test") is None


def test_a_secret_is_a_setting_for_one_origin_and_in_no_repr() -> None:
    url = GitUrl.parse("https://git.test:8443/app")
    login = Login(("git.test",), "ann", "secret-of-anns", ca_file="/ca.pem")
    told = dict(settings(url, login, ["10.0.0.1", "fd00::1"]))
    shown = b64encode(b"ann:secret-of-anns").decode()
    assert told["http.https://git.test:8443/.extraHeader"] == f"Authorization: Basic {shown}"
    assert told["http.followRedirects"] == "false"
    assert told["http.sslCAInfo"] == "/ca.pem"
    assert told["http.curloptResolve"] == "git.test:8443:10.0.0.1,[fd00::1]"
    assert "secret" not in repr(login)
    assert "secret" not in repr(Login(("*",), token="secret", netrc=netrc.read("machine a login b password secret")))


def test_a_secret_does_not_go_in_plain_text_unless_that_is_said() -> None:
    url = GitUrl.parse("http://git.test/app")
    assert not [key for key, _ in settings(url, Login(("*",), token="secret")) if "extraHeader" in key]
    assert [key for key, _ in settings(url, Login(("*",), token="secret", insecure=True)) if "extraHeader" in key]


def test_where_a_proxy_dials_it_looks_the_name_up() -> None:
    told = dict(settings(GitUrl.parse("https://git.test/app"), Login(("*",)), ["10.0.0.1"], "http://proxy.test:3128"))
    assert told["http.proxy"] == "http://proxy.test:3128"
    assert "http.curloptResolve" not in told


def test_ssh_is_told_the_key_and_the_hosts_and_asks_nobody() -> None:
    text = ssh_config(Login(("*",), key_file="/keys/a key", known_hosts_file="/known"), 10)
    for line in ("BatchMode yes", "StrictHostKeyChecking yes", "IdentitiesOnly yes", 'IdentityFile "/keys/a key"'):
        assert f"{line}\n" in text
    assert 'UserKnownHostsFile "/known"\n' in text
    options = host_options(GitUrl.parse("ssh://git@git.test:2222/app"), ["10.0.0.1"])
    assert options == ["-o", "HostName=10.0.0.1", "-o", "HostKeyAlias=[git.test]:2222"]


def test_netrc_files_are_read_as_people_write_them() -> None:
    text = """# mine
machine git.test login ann password secret-of-anns
machine other.test
  login bob
  account x
  password secret-of-bobs
macdef init
 cd /tmp
 machine evil.test login x password y

machine half.test login x
default login anybody password nothing
"""
    entries = netrc.read(text)
    assert [(one.machine, one.login) for one in entries] == [
        ("git.test", "ann"),
        ("other.test", "bob"),
        ("", "anybody"),
    ]
    login = Login(("*",), netrc=entries)
    assert login.basic("git.test", "git.test") == ("ann", "secret-of-anns")
    assert login.basic("new.test", "new.test") == ("anybody", "nothing")
    assert netrc.find(netrc.read("machine a.test:8443 login x password y"), "a.test", "a.test:8443") is not None
    assert netrc.find(netrc.read("machine a.test login x password y"), "b.test", "b.test") is None


@pytest.mark.parametrize("text", ["login x", "machine", "machine a what b", "machine a login"])
def test_a_broken_netrc_is_refused_without_a_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r"it ends|stands before|none of"):
        netrc.read(text)


# what git says

_UNABLE = "fatal: unable to access 'https://git.test/app/': "


@pytest.mark.parametrize(
    ("stderr", "cause", "problem"),
    [
        ("fatal: could not read Username for 'https://git.test': terminal prompts disabled", "denied", UpstreamDenied),
        ("remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://git.test/app/'", "denied", None),
        (f"{_UNABLE}The requested URL returned error: 403", "denied", UpstreamDenied),
        (f"{_UNABLE}The requested URL returned error: 404", "absent", NotFound),
        (f"{_UNABLE}The requested URL returned error: 301", "redirected", UpstreamFailed),
        (f"{_UNABLE}The requested URL returned error: 503", "busy", UpstreamUnavailable),
        (f"{_UNABLE}The requested URL returned error: 500", "other", UpstreamFailed),
        ("remote: Repository not found.\nfatal: repository 'https://git.test/app/' not found", "absent", NotFound),
        (f"{_UNABLE}Could not resolve host: git.test", "unreachable", UpstreamUnavailable),
        (f"{_UNABLE}Failed to connect to git.test port 443: Connection refused", "unreachable", None),
        (f"{_UNABLE}server certificate verification failed. CAfile: none CRLfile: none", "mistrusted", UpstreamFailed),
        (f"{_UNABLE}Operation too slow. Less than 1 bytes/sec", "silent", UpstreamTimeout),
        ("git@git.test: Permission denied (publickey).\r\nfatal: Could not read from remote", "denied", UpstreamDenied),
        ("Host key verification failed.\r\nfatal: Could not read from remote repository.", "mistrusted", None),
        ("ssh: Could not resolve hostname git.test: Name or service not known", "unreachable", None),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", "absent", NotFound),
        ("fatal: '/app' does not appear to be a git repository\nfatal: Could not read", "absent", NotFound),
        (
            "ERROR: The project you were looking for could not be found or you don't have permission to view it.",
            "absent",
            NotFound,
        ),
        ("fatal: TF401019: The Git repository with name or identifier app does not exist", "absent", NotFound),
        ("Warning: Identity file /key does not exist.\nfatal: Could not read from remote", "other", UpstreamFailed),
        ("fatal: couldn't find remote ref refs/tags/v1", "no such ref", UpstreamFailed),
        ("fatal: write error: No space left on device", "disk full", StorageFull),
        ("something else", "other", UpstreamFailed),
        ("", "other", UpstreamFailed),
    ],
)
def test_words_of_gits_mean_something(stderr: str, cause: str, problem: type[Exception] | None) -> None:
    failed = GitFailed(128, stderr)
    assert failed.cause.value == cause
    if problem is not None:
        assert isinstance(failed.problem("https://git.test/app"), problem)


def test_what_is_said_is_one_line_that_can_be_shown() -> None:
    assert said("Cloning into 'x'...\nremote: Counting: 3\nfatal: \x1b[31mgone\nfatal: more\n") == "?[31mgone"
    assert said("Cloning\nremote: \x1b[31mno\n") == "?[31mno"
    assert said("a\nb\n") == "b"
    assert said("") == "it said nothing"
    assert len(said("fatal: " + "x" * 1000)) == 300
    assert GitSilent(5).cause is Cause.SILENT
    assert "more than 7 bytes" in str(TooMuch(7))


def test_references_are_branches_and_tags_and_nothing_else() -> None:
    one, two = "1" * 40, "2" * 40
    text = (
        f"{one}\tHEAD\n{one}\trefs/heads/main\n{two}\trefs/tags/v1\n{one}\trefs/tags/v1^{{}}\n"
        f"{one}\trefs/pull/1/head\nnonsense\n{one}\trefs/heads/a..b c\n{one}\trefs/tags/v2\x1b\n"
    )
    found = References.parse(text.encode(), 7.0)
    assert found.commits == {"HEAD": one, "refs/heads/main": one, "refs/tags/v1": one}
    assert found.named("v1") == ("refs/tags/v1", one)
    assert found.named("HEAD") == ("HEAD", one)
    assert References.decode(found.encode("https://git.test/app")) == found
    assert References.decode(b"{") is None
    assert References.parse(text.replace(one, two).encode(), 8.0).moved_from(found) == {"v1": (one, two)}
    assert References.parse(b"", 0.0).head == ""


def test_folders_and_commits_are_read_to_the_letter() -> None:
    name = "1" * 40
    lines = (f"100644 blob {name}      12\ta\tb\n", f"120000 blob {name} 3\tlink", f"160000 commit {name}       -\tsub")
    data = "".join(f"{line}\x00" for line in lines)
    first, link, sub = parse_tree(data.encode())
    assert (first.path, first.size, first.is_file) == ("a\tb\n", 12, True)
    assert (link.is_file, link.is_blob, sub.is_blob) == (False, True, False)
    assert parse_commit(f"{name} 1704164645\n".encode()).seconds == 1704164645
    with pytest.raises(UpstreamFailed, match="says of a folder"):
        parse_tree(b"nonsense\0")
    with pytest.raises(UpstreamFailed, match="says of a commit"):
        parse_commit(b"")
