"""A run that a Unix group shares: `run.group=<group>`.

The group reads everything in the run folder and writes only into `requests/` (`run/requests.py`): a batch
script or a pickle that others could change would act with its owner's rights. Others get nothing. Files get
their rights by the folder's default ACL, which also goes before a umask; on a file system without ACLs by the
umask that `umask_of` gives. What is made with mode 0600, as a secret is, stays with its owner.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from conf.errors import InputError
from elm_megatron.run.requests import FOLDER as REQUESTS

PRIVATE = 0o077
READ, WRITE = 0o5, 0o7  # of a folder: names and entry; also new names
ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
# linux/posix_acl.h and posix_acl_xattr.h: a version, then (tag, permissions, id) in rising order of tags.
VERSION, ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, NOBODY = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0xFFFFFFFF
NO_ACL = (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM)
OWNERS = (".pkl", ".sh")  # what the owner's jobs run: of no use to others


def share(run: Path, group: str) -> list[str]:
    """Open a run folder to a group, now and for what will be written into it.

    Args:
        run: the run folder, which is there.
        group: name of a Unix group.

    Returns:
        What the group still cannot do, as clauses.

    Raises:
        InputError: there is no such group, or this user is not in it.
    """
    gid = gid_of(group)
    requests = run / REQUESTS
    try:
        if not is_shared(run, gid):
            for path in _everything(run):
                _open_to(path, gid)
        requests.mkdir(mode=0o700, exist_ok=True)
        if stat.S_IMODE(requests.stat().st_mode) != 0o3770:
            _open_to(requests, gid, WRITE)
    except PermissionError as error:
        raise InputError(
            f"run.group={group}: {error.filename} cannot be given to that group, of which you have to be a "
            "member (see: id)."
        ) from error
    _let_pass(run.parent, gid)
    closed = [str(folder) for folder in run.parents if not _lets_pass(folder, gid)]
    if not closed:
        return []
    return [
        f"the group {group} cannot reach {run}: {', '.join(closed)} is closed to it (setfacl -m g:{group}:x, "
        "or chmod)"
    ]


def gid_of(group: str) -> int:
    """The number of a group.

    Raises:
        InputError: there is no such group.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"run.group={group}: there is no such Unix group here (see: id).") from None


def is_shared(run: Path, gid: int | None = None) -> bool:
    """Whether a run folder is open to a group, or to that one."""
    with contextlib.suppress(OSError):
        found = run.stat()
        return bool(found.st_mode & stat.S_ISGID and found.st_mode & 0o050) and gid in (None, found.st_gid)
    return False


def umask_of(run: Path) -> int:
    """The umask of whoever writes into a run folder; where ACLs give the group its rights, the usual one."""
    return 0o027 if is_shared(run) and not _acl(run, DEFAULT_ACL) else PRIVATE


def keep_private(logs: Path) -> None:
    """Take from the group what only the owner's jobs run."""
    for path in logs.iterdir():
        if path.name.endswith(OWNERS) and not path.is_symlink():
            path.chmod(0o600)


# ---- modes and ACLs


def _everything(run: Path) -> Iterator[Path]:
    """All in the folder, and at last the folder itself, which tells that nothing is left to do."""
    for folder, _, names in os.walk(run, topdown=False):
        yield from (Path(folder) / name for name in names if not name.endswith(OWNERS))
        yield Path(folder)


def _open_to(path: Path, gid: int, group: int = READ) -> None:
    if path.is_symlink():
        return
    os.chown(path, -1, gid)
    if not path.is_dir():
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700 | 0o040)
        return
    entries = [(USER_OBJ, 7, NOBODY), (GROUP_OBJ, READ, NOBODY), (OTHER, 0, NOBODY)]
    _set_acl(path, DEFAULT_ACL, entries)
    sticky = stat.S_ISVTX if group == WRITE else 0
    path.chmod(stat.S_ISGID | sticky | 0o700 | group << 3)  # the owner group gets it with every new file


def _let_pass(folder: Path, gid: int) -> None:
    """Let a group through a folder of this user's, without showing what is in it."""
    found = folder.stat()
    if found.st_uid != os.geteuid() or _lets_pass(folder, gid):
        return
    mode = stat.S_IMODE(found.st_mode)
    entries = _acl(folder, ACCESS_ACL) or [
        (USER_OBJ, mode >> 6 & 7, NOBODY),
        (GROUP_OBJ, mode >> 3 & 7, NOBODY),
        (OTHER, mode & 7, NOBODY),
    ]
    mask = next((bits for tag, bits, _ in entries if tag == MASK), mode >> 3 & 7) | 1
    kept = [entry for entry in entries if entry[0] != MASK and entry[::2] != (GROUP, gid)]
    if _set_acl(folder, ACCESS_ACL, [*kept, (GROUP, 1, gid), (MASK, mask, NOBODY)]):
        return
    if not mode & 0o070:  # no other group uses it
        with contextlib.suppress(PermissionError):
            os.chown(folder, -1, gid)
            folder.chmod(mode | 0o010)


def _lets_pass(folder: Path, gid: int) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return True  # it cannot be looked at from here
    entries = _acl(folder, ACCESS_ACL)
    named = next((bits for tag, bits, number in entries if (tag, number) == (GROUP, gid)), None)
    if named is not None:
        return bool(named & 1)
    bits = found.st_mode >> 3 if found.st_gid == gid else found.st_mode
    return bool(bits & 1)


def _acl(path: Path, name: str) -> list[tuple[int, int, int]]:
    """The entries of an ACL, none where there is none."""
    try:
        data = os.getxattr(path, name)
    except OSError:
        return []
    return list(ENTRY.iter_unpack(data[VERSION.size :]))


def _set_acl(path: Path, name: str, entries: list[tuple[int, int, int]]) -> bool:
    """Set an ACL; False where the file system has none."""
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[2]))
    try:
        os.setxattr(path, name, VERSION.pack(2) + b"".join(ENTRY.pack(*entry) for entry in ordered))
    except OSError as error:
        if error.errno not in NO_ACL:
            raise
        return False
    return True
