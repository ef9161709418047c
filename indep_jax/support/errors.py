"""The error that a command tells in one line."""


class UserError(ValueError):
    """A user's mistake. Its message is one line that names the culprit and what was expected.

    Commands print the message alone and end with exit code 2 (support/command.py); every other
    exception is a bug and keeps its traceback.
    """
