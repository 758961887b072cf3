"""The one error a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: which file, which row, what is wrong, what to do.

    The message is shown alone, without a traceback, so it must say all of that in one line.
    """
