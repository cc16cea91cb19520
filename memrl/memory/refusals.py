"""Why the memory system refuses what a model asks for: one list, counted and shown by its names."""

from __future__ import annotations

from enum import StrEnum

from memrl.errors import MemrlError


class Reason(StrEnum):
    """Why a call was refused; the first group is malformed calls, the second cannot be done now."""

    UNKNOWN_FUNCTION = "unknown_function"
    ARGUMENTS_TOO_LONG = "arguments_too_long"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    REPEATED_ARGUMENT = "repeated_argument"
    UNKNOWN_ARGUMENT = "unknown_argument"
    MISSING_ARGUMENT = "missing_argument"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    TEXT_TOO_LONG = "text_too_long"
    BLANK_TEXT = "blank_text"
    NOT_A_CHOICE = "not_a_choice"
    NOT_A_DATE = "not_a_date"

    CHAIN_ENDED = "chain_ended"
    BLOCK_FULL = "block_full"
    WORKING_CONTEXT_FULL = "working_context_full"
    TEXT_NOT_FOUND = "text_not_found"
    TEXT_AMBIGUOUS = "text_ambiguous"
    DATES_REVERSED = "dates_reversed"
    UNKNOWN_PAGE = "unknown_page"
    ALREADY_RESIDENT = "already_resident"
    NOT_RESIDENT = "not_resident"
    STORE_FAILED = "store_failed"


class RefusedError(MemrlError):
    """The memory system does not do what was asked, and nothing has changed.

    Args:
        reason: which of the known reasons it is.
        message: one sentence for whoever asked: what is wrong and what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def quoted(text: str, limit_chars: int = 60) -> str:
    """A text as an error message can quote it: on one line, printable, cut after a limit."""
    is_cut = len(text) > limit_chars
    return ascii(text[:limit_chars]) + ("..." if is_cut else "")
