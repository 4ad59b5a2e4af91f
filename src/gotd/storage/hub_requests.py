"""Requests to the Hugging Face Hub: a time limit, retries, and errors told apart by their cause."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Cause = Literal["absent", "temporary", "disk", "other"]
"""Why a request failed: it is not there or not open to us, it may work later, the disk, or else."""

TIMEOUT_S = 30.0
"""Seconds to wait for an answer."""
WAITS_S = (1.0, 4.0, 15.0)
"""Seconds before each further try, unless the Hub names others."""
LONGEST_WAIT_S = 60.0
ABSENT, LATER = (401, 403, 404, 410), (408, 425, 429, 500, 502, 503, 504)
"""Answers that stay as they are, and answers that may change."""
_OFFLINE = ("OfflineModeIsEnabled", "OfflineModeEnabled")
_BROKEN = ("ConnectError", "ReadError", "RemoteProtocolError", "ProtocolError", "TimeoutException")


def asked(request: Callable[[], Answer], what: str) -> Answer:
    """Run a request, and repeat it where the cause of its failure is temporary.

    Args:
        request: Sends it; what its last try raises is raised.
        what: What is asked for, for the log.
    """
    from huggingface_hub import get_session

    get_session().timeout = TIMEOUT_S  # else it waits without end
    log.debug("asking the Hub for %s", what)
    for wait_s in WAITS_S:
        try:
            return request()
        except Exception as error:
            if cause_of(error) != "temporary":
                raise
            wait_s = min(LONGEST_WAIT_S, _retry_after(error) or wait_s)
            log.warning("no answer for %s (%s); again in %.0f s", what, _line(error), wait_s)
        time.sleep(wait_s)
    return request()


def cause_of(error: BaseException) -> Cause:
    """Return why a request failed."""
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        status = status or getattr(one, "code", None)  # of urllib
        if status in ABSENT:
            return "absent"
        if status in LATER:
            return "temporary"
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return "disk"
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    if names & {*_OFFLINE}:
        return "other"
    return "temporary" if names & {*_BROKEN, "ConnectionError", "TimeoutError"} else "other"


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds that an answer asks us to wait."""
    for one in _chain(error):
        headers = getattr(getattr(one, "response", None), "headers", None) or {}
        value = headers.get("Retry-After", headers.get("retry-after", ""))
        if str(value).isdigit():
            return float(value)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
