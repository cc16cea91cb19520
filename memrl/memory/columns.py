"""How texts and times are written into SQLite columns, so that they come back exactly.

SQLite's own text ends at a NUL and must be valid UTF-8; a Python string may hold NUL and lone
surrogates (a language model that cuts an emoji in two produces them). Texts are therefore blobs in
UTF-8 with `surrogatepass`, which maps strings to bytes one to one. As bound blobs they are never
read as SQL. A time is two whole numbers, so that it sorts and compares as numbers do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

LIMIT_INTEGER = 2**53 - 1
"""Largest integer kept or named: what every JSON reader keeps exact (RFC 8259, section 6)."""
DAY_US = 24 * 3600 * 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_id(number: int) -> bool:
    """Whether a page or an entry can have this number, which functions name."""
    return 0 <= number <= LIMIT_INTEGER


def encode_text(text: str) -> bytes:
    """Return the blob that `decode_text` turns into the same text."""
    return text.encode("utf-8", "surrogatepass")


def decode_text(blob: bytes) -> str:
    """Return the text of a blob that `encode_text` made."""
    return blob.decode("utf-8", "surrogatepass")


def encode_time(time: datetime) -> tuple[int, int]:
    """Return (microseconds since 1970 in UTC, offset of the time zone in microseconds).

    Raises:
        ValueError: if the time has no time zone.
    """
    offset = time.utcoffset()
    if offset is None:
        raise ValueError(
            f"The time {time.isoformat()} has no time zone: pass one with tzinfo, for example "
            "datetime.now(timezone.utc)."
        )
    return (time - _EPOCH) // _MICROSECOND, offset // _MICROSECOND


def decode_time(utc_us: int, offset_us: int) -> datetime:
    """Return the time that `encode_time` was given, its time zone as a fixed offset."""
    # Through local time: the first and the last year have no UTC time in every zone.
    local = _EPOCH.replace(tzinfo=None) + timedelta(microseconds=utc_us + offset_us)
    return local.replace(tzinfo=timezone(timedelta(microseconds=offset_us)))
