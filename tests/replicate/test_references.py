"""What people write for an image, and what it means."""

from __future__ import annotations

import pytest

from mxart.config import Replicate
from mxart.errors import BadRequest, Forbidden
from mxart.replicate.engine import Wish
from mxart.replicate.reference import parse_place
from mxart.replicate.run import Choice, allowed_target, wishes_of

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("registry.example/team/app:1.0", "https://registry.example/team/app:1.0"),
        ("http://localhost:5000/app", "http://localhost:5000/app"),
        ("localhost:5000/app:x", "https://localhost:5000/app:x"),
        ("HTTPS://Registry.Example:443/app", "https://registry.example/app"),
        ("[::1]:5000/app:1", "https://[::1]:5000/app:1"),
        (f"quay.io/a/b@{DIGEST}", f"https://quay.io/a/b@{DIGEST}"),
        (f"quay.io/a/b:1@{DIGEST}", f"https://quay.io/a/b@{DIGEST}"),
        ("docker.io/alpine:3", "https://registry-1.docker.io/library/alpine:3"),
        ("docker.io/team/app", "https://registry-1.docker.io/team/app"),
    ],
)
def test_an_image_is_found_as_it_is_written(text: str, meant: str) -> None:
    assert str(parse_place(text)) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("alpine:3", "does not say of which registry"),
        ("library/alpine", "does not say of which registry"),
        ("registry.example", "does not say of which registry"),
        ("registry.example/", "does not say of which registry"),
        ("docker://registry.example/x", "neither http nor https"),
        ("registry.example/Team/app", "not a repository name"),
        ("registry.example/../app", "not a repository name"),
        ("registry.example/app:a b", "not a tag"),
        ("registry.example/app:", "not a tag"),
        ("registry.example/app@sha256:12", "not a digest"),
        ("https://user:pw@registry.example/app", "^credentials do not belong"),
        ("registry.example:99999/app", "Port out of range"),
        ("", "does not say of which registry"),
    ],
)
def test_what_is_no_image_is_told_with_what_would_be_right(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        parse_place(text)


@pytest.mark.parametrize(
    ("source", "target", "choice", "wishes"),
    [
        ("r.example/a:1", "s.example/b", Choice(), [Wish("1", ("1",))]),
        ("r.example/a", "s.example/b", Choice(), [Wish("latest", ("latest",))]),
        ("r.example/a", "s.example/b:2", Choice(), [Wish("latest", ("2",))]),
        ("r.example/a:1", "s.example/b:2", Choice(tags=("3", "2")), [Wish("1", ("2", "3"))]),
        (f"r.example/a@{DIGEST}", "s.example/b", Choice(), [Wish(DIGEST, ())]),
        (f"r.example/a@{DIGEST}", "s.example/b", Choice(tags=("x",)), [Wish(DIGEST, ("x",))]),
        ("r.example/a", "s.example/b", Choice(all_tags=True), []),
    ],
)
def test_the_tag_is_the_same_unless_the_target_says_another(
    source: str, target: str, choice: Choice, wishes: list[Wish]
) -> None:
    assert wishes_of(parse_place(source), parse_place(target), choice) == wishes


@pytest.mark.parametrize(
    ("source", "target", "choice"),
    [
        ("r.example/a:1", f"s.example/b@{DIGEST}", Choice()),
        ("r.example/a:1", "s.example/b", Choice(all_tags=True)),
        ("r.example/a", "s.example/b:1", Choice(all_tags=True)),
        ("r.example/a", "s.example/b", Choice(all_tags=True, tags=("x",))),
        ("r.example/a", "s.example/b", Choice(tags=("a b",))),
    ],
)
def test_what_does_not_go_together_is_refused(source: str, target: str, choice: Choice) -> None:
    with pytest.raises(BadRequest):
        wishes_of(parse_place(source), parse_place(target), choice)


@pytest.mark.parametrize(
    "other",
    ["http://mirror.example/a", "mirror.example:444/a", "169.254.169.254/a", "10.0.0.7:5000/a", "localhost/a"],
)
def test_the_api_dials_only_what_the_configuration_names(other: str) -> None:
    allowed = Replicate(targets=("https://mirror.example", "http://10.0.0.7:5000/"))
    assert allowed_target("mirror.example/a:1", allowed).registry == "https://mirror.example"
    assert allowed_target("http://10.0.0.7:5000/a", allowed).registry == "http://10.0.0.7:5000"
    with pytest.raises(Forbidden, match=r"\[replicate\] targets"):
        allowed_target(other, allowed)
    with pytest.raises(Forbidden):
        allowed_target("mirror.example/a", Replicate())
