"""The one exception that a user's input can cause."""


class R2MError(Exception):
    """Bad input: the message names the file, the key and what was expected."""
