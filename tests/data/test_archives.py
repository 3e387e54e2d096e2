"""Archives that strangers made: names that lead outside, links, bombs, damage."""

import os
import stat
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.data import archives
from t2ilib.errors import InputError


def zipped(path, *names, mode=0, data=b"x", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            member = zipfile.ZipInfo("placeholder")
            member.filename, member.external_attr, member.compress_type = name, mode << 16, method
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize(
    "name", ["../up.jpg", "a/../../up.jpg", "/etc/x", "C:/x.jpg", "c:x.jpg", "a\\..\\b", "\\\\server\\x", "a\nb", ".."]
)
def test_members_that_lead_outside_are_refused(tmp_path, name):
    path = zipped(tmp_path / "bad.zip", "fine.jpg", name)
    for use in (archives.open_archive, lambda path: archives.extract(path, tmp_path / "out")):
        with pytest.raises(InputError, match=r"bad\.zip.*name"):
            use(path)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.zip"]


@pytest.mark.parametrize("name", ["a: red.jpg", "c:x.jpg", "C:/x.jpg"])
def test_a_name_like_a_drive_is_called_that(name):
    with pytest.raises(
        InputError, match=rf"list\.txt: the name '{name}' begins with '{name[:2]}', a drive of Windows; re"
    ):
        archives.check_name(name, "list.txt")


@pytest.mark.parametrize("name", ["../", "./../", "/..", "/.", "."])
def test_folders_without_a_name_are_passed_over_and_no_others(tmp_path, name):
    good = zipped(tmp_path / "good.zip", "./", "/", "./a/b.txt", "a/")
    with archives.open_archive(good) as archive:
        assert archives.files(archive) == {"a/b.txt": "./a/b.txt"}
    archives.extract(good, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["a", "b.txt"]
    with pytest.raises(InputError, match=r"bad\.zip: the name .* leads outside"):
        archives.open_archive(zipped(tmp_path / "bad.zip", name))


@given(name=st.text(st.characters(codec="utf-8"), max_size=20))
def test_checked_names_stay_inside(name):
    try:
        checked = archives.check_name(name, "list.txt")
    except InputError:
        return
    inside = os.path.normpath(os.path.join("/base/folder", checked))
    assert inside.startswith("/base/folder/")


def test_links_and_encrypted_members_are_refused(tmp_path):
    with pytest.raises(InputError, match="'shadow' is a link"):
        archives.open_archive(zipped(tmp_path / "link.zip", "shadow", mode=stat.S_IFLNK | 0o777))
    path = zipped(tmp_path / "locked.zip", "secret")
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 8, 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match="'secret' is encrypted"):
        archives.open_archive(path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "bomb.zip", "zeros.jpg", data=bytes(20 << 20))
    with pytest.raises(InputError, match=r"'zeros\.jpg'.*bomb"):
        archives.open_archive(path)
    monkeypatch.setattr(archives, "TOTAL_LIMIT", 5)
    with pytest.raises(InputError, match="over the limit"):
        archives.open_archive(zipped(tmp_path / "many.zip", "a", "b", data=b"1234"))


@pytest.mark.parametrize(
    ("method", "told"), [(zipfile.ZIP_STORED, None), (zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma"), (9, "")]
)
def test_only_methods_that_can_be_unpacked_in_pieces_are_read(tmp_path, method, told):
    path = zipped(tmp_path / "some.zip", "a.jpg", data=b"x" * 1000, method=0 if method == 9 else method)
    if told is None:
        assert archives.read_member(archives.open_archive(path), "a.jpg") == b"x" * 1000
        return
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, method)
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"some\.zip: member 'a\.jpg' is compressed by .*{told}.*with deflate"):
        archives.open_archive(path)


def lying(path, name, size, declared):
    """A zip whose member declares fewer bytes than its `size` zeros, with the right checksum of those few."""
    data = bytearray(zipped(path, name, data=bytes(size)).read_bytes())
    for at in (14, data.index(b"PK\x01\x02") + 16):
        struct.pack_into("<I", data, at, zlib.crc32(bytes(declared)))
        struct.pack_into("<I", data, at + 8, declared)
    path.write_bytes(data)
    return path


def test_no_more_is_unpacked_than_a_member_declares(tmp_path):
    with archives.open_archive(lying(tmp_path / "lie.zip", "a.txt", 64 << 20, 900)) as archive:
        tracemalloc.start()
        assert archives.read_member(archive, "a.txt") == bytes(900)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 8 << 20


def test_a_member_is_checked_to_its_end(tmp_path):
    path = zipped(tmp_path / "some.zip", "a.bin", data=os.urandom(1000), method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with archives.open_archive(path) as archive, pytest.raises(InputError, match=r"'a\.bin' is damaged .*CRC"):
        archives.read_member(archive, "a.bin")


def test_archives_that_are_none_or_damaged(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        archives.open_archive(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(InputError, match="not a readable zip"):
        archives.open_archive(tmp_path / "text.zip")
    path = zipped(tmp_path / "broken.zip", "a.bin", data=os.urandom(1000))
    data = bytearray(path.read_bytes())
    data[300:400] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"'a\.bin' is damaged"):
        archives.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_extract_unpacks(tmp_path):
    archives.extract(zipped(tmp_path / "good.zip", "a.txt", "b/c.txt", data=b"hello"), tmp_path / "out")
    assert (tmp_path / "out" / "b" / "c.txt").read_bytes() == b"hello"
    with pytest.raises(InputError, match="not empty"):
        archives.extract(tmp_path / "good.zip", tmp_path / "out")


def test_a_name_that_is_there_twice_is_told_however_it_is_marked(tmp_path):
    path = zipped(tmp_path / "twice.zip", "ü.jpg", "Zz.jpg")
    path.write_bytes(path.read_bytes().replace(b"Zz", "ü".encode()))  # not marked as UTF-8
    with pytest.raises(InputError, match=r"twice\.zip: member 'ü\.jpg' is there twice"):
        archives.open_archive(path)


def test_a_damaged_member_is_named_as_it_was_packed(tmp_path):
    path = zipped(tmp_path / "some.zip", "Zz.bin", data=b"x" * 9, method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"Zz", "ü".encode()).replace(b"xxx", b"yyy", 1))
    with archives.open_archive(path) as archive, pytest.raises(InputError, match=r"'ü\.bin' is damaged"):
        archives.read_member(archive, archives.files(archive)["ü.bin"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a.jpg", "./a.jpg", "a.jpg/"])
def test_members_that_are_there_twice_are_refused(tmp_path, second):
    with pytest.raises(InputError, match=r"twice\.zip: member 'a\.jpg' is there twice"):
        archives.open_archive(zipped(tmp_path / "twice.zip", "a.jpg", second))


def test_many_small_members_can_be_a_bomb_too(tmp_path):
    path = zipped(tmp_path / "bomb.zip", *(f"{i}.jpg" for i in range(20)), data=bytes(1 << 20))
    with pytest.raises(InputError, match=r"bomb\.zip: .* that unpack to 20971520, a decompression bomb"):
        archives.open_archive(path)


def test_a_member_is_read_up_to_a_limit(tmp_path):
    with archives.open_archive(zipped(tmp_path / "some.zip", "a.jpg", data=b"12345")) as archive:
        assert archives.read_member(archive, "a.jpg", 5) == b"12345"
        with pytest.raises(InputError, match=r"some\.zip: member 'a\.jpg' has 5 bytes, over 4"):
            archives.read_member(archive, "a.jpg", 4)
        with pytest.raises(InputError, match=r"some\.zip: member 'b\.jpg' is missing"):
            archives.read_member(archive, "b.jpg")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "é" * 128, "a/" * 2000 + "b", "a\0b", "\ud800.jpg"])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(InputError, match=r"list\.txt: "):
        archives.check_name(name, "list.txt")


def test_what_is_no_file_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(InputError, match=r"pipe\.zip: a named pipe, not a file"):
        archives.open_archive(tmp_path / "pipe.zip")


def test_a_member_without_memory_for_it_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_):
        raise MemoryError

    path = zipped(tmp_path / "some.zip", "a.jpg")
    monkeypatch.setattr(zipfile.ZipFile, "open", refuse)
    with archives.open_archive(path) as archive, pytest.raises(MemoryError):
        archives.read_member(archive, "a.jpg")
