"""What readers raise, as HTTP says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backplane.security.content import CannotRead
from backplane.web.problems import Problem, not_found, unavailable
from query_api.freshness import NoSuch, ProjectionsLag


@contextmanager
def answers() -> Iterator[None]:
    """Around a call of a reader. Raises Problem."""
    try:
        yield
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except ProjectionsLag:
        raise unavailable(
            "projections", "The read models are behind; whether this is there cannot be said yet."
        ) from None
    except CannotRead:
        raise Problem(
            500, "unreadable", "Unreadable", "What was written here cannot be read; it was logged for the operator."
        ) from None
