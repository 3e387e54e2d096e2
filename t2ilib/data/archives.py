"""Readers for zip archives that strangers made: every member's name, kind and size is checked before it is unpacked.

Whatever is wrong becomes an `InputError` that names the archive and the member.
"""

import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from t2ilib.data import reading
from t2ilib.errors import InputError

MEMBER_LIMIT = 2 << 30  # unpacked bytes of one member of an archive
TOTAL_LIMIT = 256 << 30  # unpacked bytes of a whole archive
RATIO_LIMIT, RATIO_FROM = 250, 16 << 20  # what is larger than the second has shrunk by the first at most
UTF8 = 0x800  # the flag of a member whose name is marked as UTF-8
NAME_LIMIT, PATH_LIMIT = 255, 4000  # bytes of a name, and of it with its folders
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others are unpacked whole, whatever size they declare


def check_name(name: str, inside: str | Path) -> str:
    """Return a relative path as written in a list or archive, normalised; `InputError` when it could lead outside."""
    path = PurePosixPath(reading.check_text(name, inside))
    if len(name.encode()) > PATH_LIMIT or any(len(part.encode()) > NAME_LIMIT for part in path.parts):
        raise InputError(f"{inside}: the name {name!r} is longer than files can have; rename that file")
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InputError(f"{inside}: the name {name!r} leads outside; use relative names with '/' and without '..'")
    if re.match(r"[A-Za-z]:", name):
        raise InputError(f"{inside}: the name {name!r} begins with {name[:2]!r}, a drive of Windows; rename that file")
    if any(ord(letter) < 32 for letter in name):
        raise InputError(f"{inside}: the name {name!r} holds control characters; rename that file")
    return str(path)


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """Open a zip archive after checking every member's name, kind and declared size; `InputError` names the member."""
    if not reading.is_file(path):
        raise InputError(f"{path}: no such file; check the path")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # damaged directories fail in many ways
        raise InputError(f"{path}: not a readable zip archive ({error}); get it again") from error
    try:
        names = set()
        for member in filter(_is_named, archive.infolist()):
            name = _check_member(member, path)
            if name in names:
                raise InputError(f"{path}: member {name!r} is there twice; pack the archive again")
            names.add(name)
        _check_total(sum(member.file_size for member in archive.infolist()), Path(path))
    except InputError:
        archive.close()
        raise
    return archive


def files(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the files of an archive that `open_archive` checked, by name, and what `read_member` calls each."""
    return {
        str(PurePosixPath(_readable(member))): member.filename for member in archive.infolist() if not member.is_dir()
    }


def _readable(member: zipfile.ZipInfo) -> str:
    """Return a member's name; UTF-8 that is not marked as such, as many programs write it, is read as what it is."""
    if member.flag_bits & UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()  # what Python reads it as
    except UnicodeError:
        return member.filename


def _is_named(member: zipfile.ZipInfo) -> bool:
    """Say whether a member is more than the folder that was packed, "./", which has no name of its own."""
    return not member.is_dir() or any(part not in ("", ".") for part in member.filename.split("/"))


def _check_total(total: int, path: Path) -> None:
    if total > TOTAL_LIMIT:
        raise InputError(f"{path}: unpacks to {total >> 30} GiB, over the limit of {TOTAL_LIMIT >> 30}; split it")
    size = path.stat().st_size
    if total > RATIO_FROM and total > RATIO_LIMIT * size:  # members may share their bytes
        raise InputError(f"{path}: {size} bytes that unpack to {total}, a decompression bomb; remove it")


def _check_member(member: zipfile.ZipInfo, path: str | Path) -> str:
    name = check_name(_readable(member), path)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{path}: member {member.filename!r} is a link or device; pack the file itself")
    if member.flag_bits & 1:
        raise InputError(f"{path}: member {member.filename!r} is encrypted; unpack the archive and pack it openly")
    if member.compress_type not in METHODS:
        method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
        raise InputError(f"{path}: member {member.filename!r} is compressed by {method}; pack the archive with deflate")
    bomb = member.file_size > RATIO_FROM and member.file_size > RATIO_LIMIT * member.compress_size
    if bomb or member.file_size > MEMBER_LIMIT:
        size = f"{member.compress_size} bytes that unpack to {member.file_size}"
        raise InputError(f"{path}: member {member.filename!r} has {size}, a decompression bomb; remove it")
    return name


def read_member(archive: zipfile.ZipFile, name: str, limit: int = MEMBER_LIMIT) -> bytes:
    """Return the bytes of one member; `InputError` when it is missing, damaged, or larger than `limit` bytes."""
    member = archive.NameToInfo.get(name)
    if not member:
        raise InputError(f"{archive.filename}: member {name!r} is missing; get the archive again")
    told, size = f"{archive.filename}: member {_readable(member)!r}", member.file_size
    if size > limit:
        raise InputError(f"{told} has {size} bytes, over {limit}; shrink or remove it")
    try:
        with archive.open(name) as file:
            return file.read(size)  # without a size, all that there is would be unpacked, and cut to it afterwards
    except MemoryError:
        raise
    except Exception as error:  # zlib, lzma and zipfile each have their own
        raise InputError(f"{told} is damaged ({error}); get the archive again") from error


def extract(path: str | Path, folder: str | Path) -> None:
    """Unpack a zip archive into a new or empty `folder`, checked as by `open_archive`; a failure leaves nothing."""
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; choose a new folder")
    with open_archive(path) as archive:
        try:
            for member in filter(_is_named, archive.infolist()):
                target = folder / check_name(_readable(member), path)
                (target if member.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                if not member.is_dir():
                    target.write_bytes(read_member(archive, member.filename))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
