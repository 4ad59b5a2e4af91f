"""Score texts with the Perspective API, the paper's scorer, while it lasts.

Its operators end the service on 2026-12-31 and retrain it without notice, so numbers
of different days are not comparable. Answers are kept, each under its text.
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
ADDRESS = "https://commentanalyzer.googleapis.com"
BUSY = (429, 500, 502, 503, 504)
"""Answers after which asking again can help."""


@dataclass(frozen=True)
class PerspectiveScorer:
    """Ask Perspective for one attribute of each text, slowly, and never twice.

    Args:
        cache: Folder of the answers.
        attribute: The attribute.
        requests_per_second: Most requests a second (the service's default quota is 1).
        tries: Times a text is asked for before its score counts as failed.
        address: Where the service answers.

    Raises:
        ValueError: If a number is out of range.
    """

    cache: str
    attribute: str = "TOXICITY"
    requests_per_second: float = 1.0
    tries: int = 4
    address: str = ADDRESS

    def __post_init__(self) -> None:
        if self.requests_per_second <= 0 or self.tries < 1:
            raise ValueError("scorer requests_per_second must be positive, tries at least 1")

    def identity(self) -> dict[str, Any]:
        """Name the service: nobody can say which weights it used."""
        return {"service": "perspective", "attribute": self.attribute}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts; NaN where the service refuses one.

        Raises:
            PermissionError: If no key is set, or the service refuses it.
            ConnectionError: If a text has no answer after all tries. A score that is only
                late must not count as failed for good; what was answered is kept.
        """
        folder = Path(self.cache)
        folder.mkdir(parents=True, exist_ok=True)
        scores = np.full(len(texts), np.nan)
        for i, text in enumerate(texts):
            name = sha256(f"{self.attribute}\x00{text}".encode()).hexdigest()
            kept = folder / name[:2] / f"{name}.json"
            if not kept.exists():
                _keep(kept, self._ask(text))
            value = json.loads(kept.read_text(encoding="utf-8"))["score"]
            scores[i] = np.nan if value is None else value
        return scores

    def _ask(self, text: str) -> dict[str, Any]:
        """Give the score, ``None`` where the text is refused."""
        key = os.environ.get(KEY)
        if not key:
            raise PermissionError(f"the Perspective API needs a key in {KEY}")
        if not text.strip():
            return {"score": None}  # it refuses these
        body = {
            "comment": {"text": text},
            "languages": ["en"],
            "requestedAttributes": {self.attribute: {}},
            "doNotStore": True,
        }
        request = urllib.request.Request(  # noqa: S310 - the address is the configuration's
            f"{self.address}/v1alpha1/comments:analyze?key={key}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        last: Exception | None = None
        for attempt in range(self.tries):
            time.sleep(2**attempt / self.requests_per_second if attempt else self._pause)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    found = json.load(answer)
                return {"score": found["attributeScores"][self.attribute]["summaryScore"]["value"]}
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")
                if error.code in (401, 403) or (error.code == 400 and "API key" in said):
                    raise PermissionError(
                        f"the Perspective API refuses the key in {KEY} ({error.code})"
                    ) from error
                if error.code == 400:  # too long, or in a language it does not know
                    return {"score": None, "refused": said[:500]}
                last = error
                if error.code not in BUSY:
                    break
            except (OSError, KeyError, ValueError) as error:
                last = error
        raise ConnectionError(
            f"the Perspective API gave no answer ({last}); what it answered is kept in "
            f"{self.cache}, run again"
        ) from last

    @property
    def _pause(self) -> float:
        return 1.0 / self.requests_per_second


def _keep(path: Path, answer: dict[str, Any]) -> None:
    """Write an answer down; another worker may be asking for the same text."""
    write_text(path, json.dumps(answer))
