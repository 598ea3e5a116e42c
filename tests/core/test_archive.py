"""Archives: whole or not at all, and never outside their folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from segbench.core import archive as archive_module
from segbench.core.archive import safe_extract
from segbench.core.errors import SegbenchError

TREE = {
    "Task/dataset.json": b"{}",
    "Task/imagesTr/a.nii.gz": b"x" * 5000,
    "Task/labelsTr/a.nii.gz": b"y" * 70,
}


def tar(path: Path, members, *, mode="w", pack=lambda data: data, **options) -> Path:
    """A tar of (name, content) pairs or ready TarInfo objects."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for member in members:
            info, content = (
                (member, b"")
                if isinstance(member, tarfile.TarInfo)
                else (tarfile.TarInfo(member[0]), member[1])
            )
            if not isinstance(member, tarfile.TarInfo):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(pack(buffer.getvalue()))
    return path


def zipped(path: Path, members, **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refuse(archive: Path, words: str) -> SegbenchError:
    """SB334, nothing unpacked, nothing left beside."""
    room = archive.parent / "room"
    room.mkdir()
    before = sorted(p.name for p in archive.parent.rglob("*"))
    with pytest.raises(SegbenchError) as caught:
        safe_extract(archive, room / "out")
    assert caught.value.code == "SB334"
    assert caught.value.path == archive
    assert words in caught.value.message, caught.value.message
    assert sorted(p.name for p in archive.parent.rglob("*")) == before
    return caught.value


PACKERS = {"x.tar": bytes, "x.tar.gz": gzip.compress, "x.tar.bz2": bz2.compress, "x.tar.xz": lzma.compress}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("flavour", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tar(tmp_path, name, flavour):
    archive = tar(tmp_path / name, TREE.items(), format=flavour, pack=PACKERS[name])
    assert safe_extract(archive, tmp_path / "out") == tmp_path / "out"
    assert files_in(tmp_path / "out") == TREE


def test_zip(tmp_path):
    safe_extract(zipped(tmp_path / "x.zip", TREE.items()), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE


def test_folders_and_empty_target(tmp_path):
    folder = tarfile.TarInfo("Task")
    folder.type = tarfile.DIRTYPE
    empty = tarfile.TarInfo("Task/empty")
    empty.type = tarfile.DIRTYPE
    (tmp_path / "out").mkdir()
    safe_extract(tar(tmp_path / "x.tar", [folder, empty, *TREE.items(), folder]), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE
    assert (tmp_path / "out" / "Task" / "empty").is_dir()


@pytest.mark.parametrize("make", [tar, zipped])
def test_leftovers_of_macos_are_left_out(tmp_path, make):
    extra = [("__MACOSX/Task/._a", b"1"), ("Task/._dataset.json", b"2"), ("._Task", b"3")]
    safe_extract(make(tmp_path / "x.bin", [*TREE.items(), *extra]), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE


@pytest.mark.parametrize("content", [b"x", None])
def test_target_that_holds_something(tmp_path, content):
    archive = tar(tmp_path / "x.tar", TREE.items())
    target = tmp_path / "out"
    if content is None:
        target.mkdir()
        (target / "mine.txt").write_text("keep me")
    else:
        target.write_bytes(content)
    with pytest.raises(SegbenchError) as caught:
        safe_extract(archive, target)
    assert caught.value.code == "SB337"
    assert target.is_file() or (target / "mine.txt").read_text() == "keep me"


EVIL_NAMES = [
    ("../evil", "leaves"),
    ("a/../../evil", "leaves"),
    ("a/..", "leaves"),
    ("/etc/evil", "relative"),
    ("C:\\evil", "backslash"),
    ("C:/evil", "drive"),
    ("a\\..\\evil", "backslash"),
    ("a\nb", "control"),
    ("safe\u202egnp.exe", "control"),
    ("a/\u2066b", "control"),
    ("x" * 300, "too long"),
]


@pytest.mark.parametrize(("name", "words"), EVIL_NAMES)
@pytest.mark.parametrize("make", [tar, zipped])
def test_names_that_are_refused(tmp_path, name, words, make):
    refuse(make(tmp_path / "x.bin", [("good", b"1"), (name, b"2")]), words)


def test_nul_in_a_name(tmp_path):
    archive = zipped(tmp_path / "x.zip", [("aXb", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb", b"a\0b"))
    refuse(archive, "control")


def test_nul_in_a_pax_name(tmp_path):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"path": "a\0b"}
    refuse(tar(tmp_path / "x.tar", [info], format=tarfile.PAX_FORMAT), "control")


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "good"),
        (tarfile.LNKTYPE, "good"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.CONTTYPE + b"", ""),
    ],
)
def test_links_and_devices(tmp_path, kind, link):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, link
    archive = tar(tmp_path / "x.tar", [("good", b"1"), info, ("odd/evil", b"2")])
    refuse(archive, "member")


def test_link_then_write_through_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    info = tarfile.TarInfo("door")
    info.type, info.linkname = tarfile.SYMTYPE, str(outside)
    refuse(tar(tmp_path / "x.tar", [info, ("door/evil", b"2")]), "link")
    assert not list(outside.iterdir())


def test_link_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("door")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    refuse(zipped(tmp_path / "x.zip", [(info, b"/etc")]), "link")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a"], "twice"),
        (["a/b", "./a/b"], "twice"),
        (["Case/a", "case/b"], "case only"),
        (["a/X.nii", "a/x.nii"], "case only"),
        (["caf\u00e9", "cafe\u0301"], "twice"),
        (["stra\u00dfe", "STRASSE"], "case only"),
        (["a", "a/b"], "inside"),
        (["a/b", "a"], "file and a folder"),
    ],
)
@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide(tmp_path, names, words, make):
    error = refuse(make(tmp_path / "x.bin", [(name, b"1") for name in names]), "member")
    assert words in error.message or "case only" in error.message


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_RATIO", 100)
    refuse(tar(tmp_path / "x.tar.gz", [("a", bytes(3_000_000))], pack=gzip.compress), "bomb")


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_a_bomb_is_refused_without_being_told_a_limit(tmp_path, name):
    refuse(tar(tmp_path / name, [("a", bytes(30_000_000))], pack=PACKERS[name]), "bomb")


def test_a_folder_of_plain_label_maps_is_no_bomb(tmp_path):
    """Uncompressed labels of an organ shrink about 200-fold, and are unpacked."""
    labels, draw = bytearray(4_000_000), random.Random(0)
    for at in range(100_000, 3_900_000, 1_000):
        length = draw.randrange(20, 200)
        labels[at : at + length] = b"\x02" * length
    archive = tar(tmp_path / "x.tar.gz", [("a.nii", bytes(labels))], pack=gzip.compress)
    assert 150 < 4_000_000 / archive.stat().st_size < 400
    safe_extract(archive, tmp_path / "out")
    assert files_in(tmp_path / "out") == {"a.nii": bytes(labels)}


def test_modes_do_not_travel(tmp_path):
    info = tarfile.TarInfo("a")
    info.mode, info.mtime = 0o4777, 1
    safe_extract(tar(tmp_path / "x.tar", [info]), tmp_path / "out")
    state = (tmp_path / "out" / "a").stat()
    assert not state.st_mode & (stat.S_ISUID | stat.S_IXUSR)
    assert state.st_mtime > 1


def test_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_RATIO", 100)
    refuse(zipped(tmp_path / "x.zip", [(f"{i}", bytes(1_000_000)) for i in range(3)]), "bomb")


def test_zip_that_lies_about_its_sizes(tmp_path):
    archive = zipped(tmp_path / "x.zip", [("a", bytes(100_000))])
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    refuse(archive, "damaged")


@pytest.mark.parametrize(
    ("limit", "most", "words"), [("MAX_MEMBERS", 10, "members"), ("MAX_BYTES", 5, "bytes")]
)
def test_members_and_bytes_are_bounded(tmp_path, monkeypatch, limit, most, words):
    archive = tar(tmp_path / "x.tar", [(f"{i}", b"1") for i in range(20)])
    monkeypatch.setattr(archive_module, limit, most)
    refuse(archive, f"more than {most} {words}")


def test_tar_header_that_asks_for_gigabytes(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2_000_000_000
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    refuse(tmp_path / "x.tar", "absurd")


def test_encrypted_zip(tmp_path):
    archive = zipped(tmp_path / "x.zip", [("a", b"1")])
    data = bytearray(archive.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    archive.write_bytes(bytes(data))
    refuse(archive, "encrypted")


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_tar(tmp_path, name, share):
    members = [*TREE.items(), ("Task/z", bytes(range(256)) * 60)]
    archive = tar(tmp_path / name, members, pack=PACKERS[name])
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data.rstrip(b"\0")) * share)])
    refuse(archive, "")


def test_tar_cut_between_members(tmp_path):
    """Python's reader takes this for the whole archive."""
    archive = tar(tmp_path / "x.tar", [("a", b"1" * 512), ("b", b"2" * 512)])
    archive.write_bytes(archive.read_bytes()[:1024])
    with tarfile.open(archive) as lenient:
        assert lenient.getnames() == ["a"]
    refuse(archive, "end marker")


def test_tar_with_a_damaged_header_in_the_middle(tmp_path):
    archive = tar(tmp_path / "x.tar", [("a", b"1" * 512), ("b", b"2" * 512), ("c", b"3")])
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 1
    archive.write_bytes(bytes(data))
    with tarfile.open(archive) as lenient:
        assert lenient.getnames() == ["a"]
    refuse(archive, "damaged")


def test_gzip_with_a_wrong_checksum(tmp_path):
    archive = tar(tmp_path / "x.tar.gz", TREE.items(), pack=gzip.compress)
    data = bytearray(archive.read_bytes())
    data[-8] ^= 1
    archive.write_bytes(bytes(data))
    refuse(archive, "damaged")


@pytest.mark.parametrize("where", [40, -40])
def test_damaged_zip(tmp_path, where):
    archive = zipped(tmp_path / "x.zip", TREE.items())
    data = bytearray(archive.read_bytes())
    data[where] ^= 0xFF
    archive.write_bytes(bytes(data))
    refuse(archive, "")


def test_cut_zip(tmp_path):
    archive = zipped(tmp_path / "x.zip", TREE.items())
    archive.write_bytes(archive.read_bytes()[:-30])
    refuse(archive, "directory")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b", b"<html>" * 200, bytes(2048), b"PK\x03\x04"])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    refuse(tmp_path / "x.tar", "")


def test_absent_archive(tmp_path):
    with pytest.raises(SegbenchError) as caught:
        safe_extract(tmp_path / "none.tar", tmp_path / "out")
    assert caught.value.code == "SB334"
