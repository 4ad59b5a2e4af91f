"""Scores of the Perspective API, the paper's scorer.

Its operators end the service on 2026-12-31 and retrain it without notice, so numbers of
different days are not comparable. Every answer is cached by its text.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from gotd.storage.files import write_text

KEY = "PERSPECTIVE_API_KEY"
ATTRIBUTE = "TOXICITY"
ADDRESS = "https://commentanalyzer.googleapis.com"
BUSY = (429, 500, 502, 503, 504)
"""Status codes after which a retry can succeed."""


@dataclass(frozen=True)
class PerspectiveScorer:
    """Client of Perspective for the attribute TOXICITY, at a limited rate and with a cache.

    Args:
        cache: Folder of the answers.
        requests_per_second: Most requests a second (the service's default quota is 1).
        tries: Requests for a text before its score counts as failed.
        address: Address of the service.

    Raises:
        ValueError: If a number is out of range.
    """

    cache: str
    requests_per_second: float = 1.0
    tries: int = 4
    address: str = ADDRESS

    def __post_init__(self) -> None:
        if self.requests_per_second <= 0 or self.tries < 1:
            raise ValueError("scorer requests_per_second must be positive, tries at least 1")

    def identity(self) -> dict[str, Any]:
        """Return the name of the service, whose weights are not known."""
        return {"service": "perspective", "attribute": ATTRIBUTE}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts; NaN for texts that the service rejects.

        Raises:
            PermissionError: If no key is set, or the service rejects it.
            ConnectionError: If a text has no answer after all tries. A late score must not
                count as failed; the answers so far stay in the cache.
        """
        folder = Path(self.cache)
        folder.mkdir(parents=True, exist_ok=True)
        scores = np.full(len(texts), np.nan)
        for i, text in enumerate(texts):
            name = sha256(f"{ATTRIBUTE}\x00{text}".encode()).hexdigest()
            path = folder / name[:2] / f"{name}.json"
            if not path.exists():
                # Atomically, because another worker may request the same text.
                write_text(path, json.dumps(self._request(text)))
            value = json.loads(path.read_text(encoding="utf-8"))["score"]
            scores[i] = np.nan if value is None else value
        return scores

    def _request(self, text: str) -> dict[str, Any]:
        """Fetch the score of one text; ``None`` if the text is rejected."""
        key = os.environ.get(KEY)
        if not key:
            raise PermissionError(f"the Perspective API needs a key in {KEY}")
        if not text.strip():
            return {"score": None}  # rejected by the service
        body = {
            "comment": {"text": text},
            "languages": ["en"],
            "requestedAttributes": {ATTRIBUTE: {}},
            "doNotStore": True,
        }
        request = urllib.request.Request(  # noqa: S310 - the address is the configuration's
            f"{self.address}/v1alpha1/comments:analyze",
            data=json.dumps(body).encode(),
            # Not in the address, which errors and logs of servers may show.
            headers={"Content-Type": "application/json", "X-Goog-Api-Key": key},
        )
        last: Exception | None = None
        pause_s = 1.0 / self.requests_per_second
        for attempt in range(self.tries):
            time.sleep(2**attempt * pause_s)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    content = json.load(answer)
                return {"score": content["attributeScores"][ATTRIBUTE]["summaryScore"]["value"]}
            except urllib.error.HTTPError as error:
                message = error.read().decode(errors="replace")
                if error.code in (401, 403) or (error.code == 400 and "API key" in message):
                    raise PermissionError(
                        f"the Perspective API rejects the key in {KEY} ({error.code})"
                    ) from error
                if error.code == 400:  # too long, or in a language it does not know
                    return {"score": None, "refused": message[:500]}
                last = error
                if error.code not in BUSY:
                    break
            except (OSError, KeyError, ValueError) as error:
                last = error
        raise ConnectionError(
            f"the Perspective API gave no answer ({last}); its other answers are cached in "
            f"{self.cache}: run again"
        ) from last
