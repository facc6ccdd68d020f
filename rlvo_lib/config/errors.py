"""The one error that a user's input raises."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line: what, where, what is allowed."""
