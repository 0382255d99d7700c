"""The one exception for wrong input: a sentence for the person who typed the command."""

import errno


class InputError(Exception):
    """Something the user gave is wrong; the message is one sentence that names it and what is allowed.

    Launchers print the message without a traceback and exit with status 2. Anything else that is raised is a
    fault of this software and keeps its traceback.
    """


def disk_full(error: OSError) -> bool:
    """Whether it says that a disk is full, or somebody's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
