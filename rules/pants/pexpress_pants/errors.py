"""The error of the rules: its text says what to do."""


class PexpressError(Exception):
    pass
