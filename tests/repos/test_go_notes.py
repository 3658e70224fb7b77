"""Notes are believed if the key has signed exactly this text, and not otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxart.repos.go.notes import BadNote, SignerKey, VerifierKey
from mxart.repos.go.sums import SUM_GOLANG_ORG

# golang.org/x/mod/sumdb/note publishes this key and this note as an example of the format.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SAYING = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()

OURS = SignerKey.generate("sums.example.test")


def test_the_note_of_the_specification_is_verified() -> None:
    assert VerifierKey.parse(PETER).verified(SAYING).endswith("then you don't know what your problem is.\n")


def test_the_key_of_the_public_database_is_well_formed() -> None:
    key = VerifierKey.parse(SUM_GOLANG_ORG)
    assert key.name == "sum.golang.org"
    assert str(key) == SUM_GOLANG_ORG


@given(st.text(st.characters(codec="utf-8", min_codepoint=32)))
def test_what_is_signed_is_verified(line: str) -> None:
    note = OURS.sign(f"{line}\n")
    assert OURS.verifier.verified(note) == f"{line}\n"


@given(st.data())
def test_no_byte_of_a_note_can_be_changed(data: st.DataObject) -> None:
    note = bytearray(OURS.sign("a tree of 7 records\n"))
    note[data.draw(st.integers(0, len(note) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        text = OURS.verifier.verified(bytes(note))
    except BadNote:
        return
    # Base64 has bits that mean nothing; the text cannot have changed.
    assert text == "a tree of 7 records\n"


@given(st.binary())
def test_noise_is_no_note(data: bytes) -> None:
    with pytest.raises(BadNote):
        OURS.verifier.verified(data)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_note_that_is_cut_is_none(cut: int) -> None:
    with pytest.raises(BadNote):
        OURS.verifier.verified(OURS.sign("text\n")[:-cut])


def test_signatures_of_others_are_passed_over() -> None:
    other = SignerKey.generate("witness.example.test").sign("text\n").partition(b"\n\n")[2]
    assert OURS.verifier.verified(OURS.sign("text\n") + other) == "text\n"
    text, _, mine = OURS.sign("text\n").partition(b"\n\n")
    assert OURS.verifier.verified(text + b"\n\n" + other + mine) == "text\n"
    with pytest.raises(BadNote, match=r"not signed by the key sums\.example\.test"):
        OURS.verifier.verified(text + b"\n\n" + other)


def test_another_key_of_the_same_name_is_another_key() -> None:
    with pytest.raises(BadNote, match="not signed by the key"):
        OURS.verifier.verified(SignerKey.generate(OURS.name).sign("text\n"))


def test_the_signature_of_one_text_does_not_do_for_another() -> None:
    signature = OURS.sign("text\n").partition(b"\n\n")[2]
    with pytest.raises(BadNote, match="is not of this text"):
        OURS.verifier.verified(b"other\n\n" + signature)


def test_a_flood_of_signatures_is_refused() -> None:
    with pytest.raises(BadNote, match="signatures"):
        OURS.verifier.verified(OURS.sign("text\n") * 1 + "— a AAAAAAAA\n".encode() * 200)


def test_keys_are_read_as_they_are_written() -> None:
    assert SignerKey.parse(OURS.secret).verifier == OURS.verifier
    assert VerifierKey.parse(str(OURS.verifier)) == OURS.verifier
    assert OURS.secret.split("+", 4)[4] not in repr(OURS)  # base64 has a plus of its own now and then


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "NAME"),
        ("sum.golang.org", "NAME"),
        (PETER.replace("+c74f20a3", "+c74f20a4"), "copied wrong"),
        (PETER.replace("+c74f20a3", "+c74f20"), "NAME"),
        (PETER[:-1], "NAME"),
        (PETER.replace("Peter", "Peter "), "NAME"),
        ("a+00000000+AA==", "not an Ed25519 key"),
    ],
)
def test_what_is_no_key_is_refused_with_what_would_be_right(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        VerifierKey.parse(text)


@pytest.mark.parametrize("text", ["", PETER, f"PRIVATE+KEY+{PETER}"])
def test_what_is_no_signer_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"PRIVATE|copied wrong"):
        SignerKey.parse(text)


def test_names_of_keys_have_no_spaces_and_texts_end_in_newlines() -> None:
    for name in ("", "a b", "a+b"):
        with pytest.raises(ValueError, match="name of a key"):
            SignerKey.generate(name)
    for text in ("text", "te\0xt\n"):
        with pytest.raises(ValueError, match="newline"):
            OURS.sign(text)
