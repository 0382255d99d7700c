"""Real Unix users for tests that run as root: a function is called in a process of another user."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER, COLLEAGUE, STRANGER = ("games", "man", "nobody")  # every Debian has them
GROUP = "users"


def why_none() -> str | None:
    """Why this machine has no such users for a test; None when it has."""
    if os.geteuid() != 0:
        return "other users are tried as root only"
    try:
        _ = [pwd.getpwnam(name) for name in (OWNER, COLLEAGUE, STRANGER)], grp.getgrnam(GROUP)
    except KeyError as error:
        return str(error)
    return None


def call_as(name: str, function: Callable[[], object], member: bool = True) -> None:
    """Call a function as another user, who is a member of `GROUP` or not.

    Raises:
        AssertionError: it raised something; its traceback is shown.
    """
    user = pwd.getpwnam(name)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([grp.getgrnam(GROUP).gr_gid] if member else [])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.umask(0o077)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0, f"as {name}: see the traceback on stderr"


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter; pytest's own is root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="elm-users-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
