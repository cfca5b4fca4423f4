"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input, configuration or environment: says what, where and what to do, in one line.

    The command line prints it as ``error: ...`` without a traceback and exits with 1.
    """
