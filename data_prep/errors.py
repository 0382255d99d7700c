"""The one exception that means "the input is wrong", shared by every room.

A launcher prints its text as a single sentence and exits non-zero; any other exception is a defect of
the suite and keeps its traceback.
"""


class InputError(Exception):
    """Wrong input by the user: says which key or file, what was found, and what is allowed."""
