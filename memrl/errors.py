"""The base of all errors that a user can mend: programs print them as one line, without a trace."""


class MemrlError(Exception):
    """Something outside the code is wrong: data, a file, a setting. The message says what to do."""
