"""Where a page of a list begins, as clients carry it about: opaque text, made here and checked here."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from backplane.security.chain import Head

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST = 2**63 - 1


class ConversationCursor(NamedTuple):
    """The last conversation of a page: when it was changed, and its id."""

    time: datetime
    id: UUID

    def __str__(self) -> str:
        micros = (self.time - _EPOCH) // _MICROSECOND
        return urlsafe_b64encode(f"{micros}.{self.id.hex}".encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> ConversationCursor:
        """Raises ValueError where ``text`` did not come from a page of conversations."""
        try:
            raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True).decode(
                "ascii"
            )
            micros, _, hexadecimal = raw.partition(".")
            return cls(_EPOCH + timedelta(microseconds=int(micros)), UUID(hexadecimal))
        except (ValueError, OverflowError, binascii.Error):
            raise ValueError("not a cursor that a page of conversations gave") from None


_PROOF = re.compile("([0-9]{1,19})-([0-9a-f]{64})")


def proof_cursor(head: Head) -> str:
    """Where a proof goes on: the line that was reached, with its hash, so that nobody can exchange it meanwhile."""
    return f"{head.sequence}-{head.hash.hex()}"


def parse_proof(text: str) -> Head:
    """Raises ValueError where ``text`` did not come from ``proof_cursor``."""
    found = _PROOF.fullmatch(text)
    if found is None or int(found[1]) > _LARGEST:
        raise ValueError("not a cursor that a proof gave")
    return Head(int(found[1]), bytes.fromhex(found[2]))


def parse_sequence(text: str) -> int:
    """The cursor of the event log: the last sequence of a page. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and int(text) <= _LARGEST):
        raise ValueError("not a cursor that a page of events gave, which is a whole number such as '1042'")
    return int(text)
