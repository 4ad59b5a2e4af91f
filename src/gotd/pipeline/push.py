"""A written selection becomes a data set on the Hugging Face Hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from gotd.pipeline.formats import DATASET
from gotd.pipeline.output import CARD, MANIFEST, REPORT, Output
from gotd.selection_report.markdown import card
from gotd.storage.hub_requests import asked

HUB = "hub:"
REFUSED = (401, 403)


def parse_push(given: str) -> str:
    """Read ``hub:owner/name`` and return ``owner/name``.

    Raises:
        ValueError: If it is no name of a data set of somebody.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = given.removeprefix(HUB)
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if not given.startswith(HUB) or name.count("/") != 1:
        raise ValueError(f"--push takes hub:owner/name, not {given[:80]!r}")
    return name


def check_push(name: str) -> None:
    """Check before any work that there is a token, and that the Hub knows it.

    Raises:
        ValueError: If there is no token, or the Hub refuses it.
        OSError: If the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise ValueError("--push needs a token of the Hub: set HF_TOKEN, or run hf auth login")
    with classified(name, ""):
        asked(HfApi().whoami, "the account of this token")


def push(name: str, output: Output, manifest: Mapping[str, Any], licence: str | None) -> str:
    """Upload rows, card, report and manifest to a data set, private if it is new.

    Args:
        name: ``owner/name``.
        output: The finished selection.
        manifest: What was recorded about it.
        licence: Of the texts, where it is known.

    Returns:
        The address of the data set.

    Raises:
        ValueError: If the Hub refuses.
        OSError: If it cannot be reached, or fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    summaries = {int(budget): summary for budget, summary in manifest["summaries"].items()}
    names = {file["rows"]: name for name, file in manifest["files"].items()}
    patterns = {n: f"{one}/*.arrow" if one.endswith(DATASET) else one for n, one in names.items()}
    text = card(manifest, summaries, patterns, licence)
    rows = output.out.parent if output.suffix else output.folder
    added = [CommitOperationAdd(CARD, text.encode())]
    added += [CommitOperationAdd(one, output.folder / one) for one in (MANIFEST, REPORT)]
    for one in names.values():
        place = rows / one
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        added += [CommitOperationAdd(str(file.relative_to(rows)), file) for file in files]
    hub = HfApi()
    where = {"repo_type": "dataset"}
    create = partial(hub.create_repo, name, private=True, exist_ok=True, **where)
    # Again after an answer was lost: equal files make no second commit.
    commit = partial(hub.create_commit, name, added, commit_message="Selection from gotd", **where)
    with classified(name, f"; the selection is in {rows}: run the same command again to push it"):
        asked(create, f"the data set {name}")
        done = asked(commit, f"the data set {name}")
    return done.repo_url.url if hasattr(done.repo_url, "url") else str(done.repo_url)


@contextmanager
def classified(name: str, after: str) -> Iterator[None]:
    """Raise what goes wrong in a request to write as one line that names cause and remedy.

    Args:
        name: What is written to, ``owner/name``.
        after: Where the content is kept; ends the message.

    Raises:
        ValueError: If the Hub refuses.
        OSError: If it cannot be reached, or fails.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in REFUSED:
            raise ValueError(
                f"the Hub refuses to write {name} with this token ({status}): use one that may "
                f"write there, or another name{after}"
            ) from error
        raise OSError(
            f"the Hub failed to take {name} ({status}); try again later{after}"
        ) from error
    except Exception as error:  # noqa: BLE001 - errors of the network have many classes
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise OSError(
            f"the Hub cannot be reached to push {name} ({cause}); check the network{after}"
        ) from error
