"""Writing a plan to a disk: atomically, with the mode and owner that were there, with a copy kept once."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mxart.setup import apply
from mxart.setup.apply import Disk
from mxart.setup.plan import Change, SetupError

_PATH = "/etc/docker/daemon.json"


def _change(content: str = "new\n", *, owned: bool = False) -> Change:
    return Change(_PATH, content, "why", owned=owned)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A file of the user's, which only its group may read."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text("old\n")
    file.chmod(0o640)
    return file


def test_folders_are_made_that_everybody_can_read_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Disk(str(tmp_path)).write(_change())
    finally:
        os.umask(before)
    file = tmp_path / "etc/docker/daemon.json"
    assert file.read_text() == "new\n"
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.parent.stat().st_mode & 0o777 == 0o755
    assert os.listdir(file.parent) == ["daemon.json"]


def test_mode_and_owner_stay_and_a_copy_is_kept_once(tmp_path: Path, there: Path) -> None:
    if os.geteuid() == 0:
        os.chown(there, 4321, 1234)
    owner = there.stat().st_uid, there.stat().st_gid
    disk = Disk(str(tmp_path))
    disk.write(_change("new\n"))
    disk.write(_change("newer\n"))
    copy = there.with_name("daemon.json.before-mxart")
    assert (there.read_text(), copy.read_text()) == ("newer\n", "old\n")
    for file in (there, copy):
        assert file.stat().st_mode & 0o777 == 0o640
        assert (file.stat().st_uid, file.stat().st_gid) == owner


def test_of_our_own_files_no_copy_is_kept(tmp_path: Path, there: Path) -> None:
    Disk(str(tmp_path)).write(_change(owned=True))
    assert os.listdir(there.parent) == ["daemon.json"]


def test_a_link_stays_a_link(tmp_path: Path, there: Path) -> None:
    real = tmp_path / "elsewhere.json"
    there.rename(real)
    there.symlink_to("../../elsewhere.json")
    Disk(str(tmp_path)).write(_change())
    assert there.is_symlink()
    assert real.read_text() == "new\n"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../outside.json"])
def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path, there: Path, target: str) -> None:
    there.unlink()
    there.symlink_to(target)
    disk = Disk(str(tmp_path))
    for act in (disk.is_done, disk.diff, disk.write):
        with pytest.raises(SetupError, match="outside of"):
            act(_change())


def test_links_in_a_circle_are_told(tmp_path: Path, there: Path) -> None:
    there.unlink()
    there.symlink_to(there)
    with pytest.raises(SetupError, match=_PATH):
        Disk(str(tmp_path)).read(_PATH)


def test_what_cannot_be_written_leaves_everything_as_it_was(
    tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match=r"/etc/docker/daemon\.json cannot be written: No space left"):
        Disk(str(tmp_path)).write(_change(owned=True))
    assert os.listdir(there.parent) == ["daemon.json"]
    assert there.read_text() == "old\n"


def test_the_difference_is_shown_as_diff_shows_it(tmp_path: Path, there: Path) -> None:
    disk = Disk(str(tmp_path))
    assert disk.diff(_change("old\nnew")) == (
        f"--- {_PATH}\n+++ {_PATH}\n@@ -1 +1,2 @@\n old\n+new\n\\ No newline at end of file\n"
    )
    assert disk.diff(Change("/none", "x\n", "")).startswith("--- /dev/null\n+++ /none\n")
    assert disk.diff(_change("old\n")) == ""
    assert disk.is_done(_change("old\n"))


def test_what_is_no_text_is_not_touched(tmp_path: Path, there: Path) -> None:
    there.write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match="not UTF-8"):
        Disk(str(tmp_path)).read(_PATH)


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path, there: Path) -> None:
    there.unlink()
    there.mkdir()
    with pytest.raises(SetupError, match="not an ordinary file"):
        Disk(str(tmp_path)).read(_PATH)
    assert Disk(str(tmp_path)).names("/etc") == ["docker"]
    assert Disk(str(tmp_path)).names("/none") is None


@pytest.mark.parametrize("whole", [True, False], ids=["of this machine", "below a root"])
def test_a_link_to_nowhere_masks_a_file_and_is_not_written_through(
    tmp_path: Path, there: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root we would put a file in the place of the machine's /dev/null. (Which this test leaves out of it.)"""
    null = tmp_path.parent / f"{tmp_path.name}-null"
    null.touch()
    monkeypatch.setattr(apply, "_MASK", null)
    there.unlink()
    there.symlink_to(null)
    disk, path = (Disk(), str(there)) if whole else (Disk(str(tmp_path)), _PATH)
    assert disk.read(path) == ""
    with pytest.raises(SetupError, match="remove it first"):
        disk.write(Change(path, "new\n", "why"))
    assert null.read_text() == ""
    assert there.readlink() == null


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, there: Path) -> None:
    there.unlink()
    os.mkfifo(there)
    disk = Disk(str(tmp_path))
    for act in (disk.is_done, disk.diff, disk.write):
        with pytest.raises(SetupError, match="not an ordinary file"):
            act(_change())
    assert stat.S_ISFIFO(there.stat().st_mode)


def test_a_file_too_large_for_settings_is_not_read(tmp_path: Path, there: Path) -> None:
    os.truncate(there, 1 << 40)
    with pytest.raises(SetupError, match="no file of settings"):
        Disk(str(tmp_path)).read(_PATH)


def test_what_somebody_else_wrote_since_the_change_was_shown_is_not_lost(tmp_path: Path, there: Path) -> None:
    """He answers the question whether to write after a while."""
    disk = Disk(str(tmp_path))
    disk.diff(_change())
    there.write_text("newer\n")
    with pytest.raises(SetupError, match="meanwhile"):
        disk.write(_change())
    assert there.read_text() == "newer\n"
    assert os.listdir(there.parent) == ["daemon.json"]


def test_a_copy_that_could_not_be_kept_whole_is_not_kept_and_nothing_is_written(
    tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a copy would pass for the whole one in the next run, which would then write over the original."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="No space left"):
        Disk(str(tmp_path)).write(_change())
    assert os.listdir(there.parent) == ["daemon.json"]
    assert there.read_text() == "old\n"


def test_a_root_that_there_is_not_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a folder"):
        Disk(str(tmp_path / "missing"))
