"""What the Hub answers when it refuses, in one line that says what to do."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from label2label.errors import UserError, join_lines

_QUOTA = re.compile(
    r"storage|quota|limit reached|exceed|too large|upgrade your plan", re.IGNORECASE
)
AGAIN = "run the same command again: what arrived is kept, and is not sent twice"


@contextlib.contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Turn the errors of the Hub's client into a `UserError` of one line.

    Args:
        repo_id: the repository that is being asked for.

    Raises:
        UserError: for no or a wrong token, no network, no right, a name that is taken, a full
            quota, a rate limit, refused metadata or a failing server.
    """
    try:
        yield
    except UserError:
        raise
    except LocalTokenNotFoundError as error:
        raise no_token() from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(explain(_innermost(error), repo_id)) from error


def no_token() -> UserError:
    """Error for a caller who is not logged in."""
    return UserError(
        "no access token: log in with `hf auth login`, or set HF_TOKEN to a token that may write "
        f"({constants.ENDPOINT}/settings/tokens)"
    )


def explain(error: BaseException, repo_id: str) -> str:
    """One line for an error of the Hub's client.

    Args:
        error: as the client raised it.
        repo_id: the repository that was asked for.

    Returns:
        What was wrong and what to do.
    """
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hub: unset it to upload"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such revision: give a branch as --revision, or refs/pr/NUMBER"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repo_id)
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        if "/xet-" in str(error) and "404" in str(error):
            return f"{constants.ENDPOINT} does not speak Xet: set HF_HUB_DISABLE_XET=1"
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({join_lines(error)}): check the "
            f"network, and HF_ENDPOINT if it is set; then {AGAIN}"
        )
    if isinstance(error, json.JSONDecodeError):
        return (
            f"what answers at {constants.ENDPOINT} is not the Hub: check HF_ENDPOINT if it is set, "
            "and whether a proxy asks for a login"
        )
    text = join_lines(error)
    if "LFS batch API" in text and _QUOTA.search(text):
        return _quota(repo_id, text)
    return f"{repo_id} was not uploaded: {text}"


def _explain_status(error: HfHubHTTPError, repo_id: str) -> str:
    status = error.response.status_code
    said = error.response.headers.get("X-Error-Message") or error.server_message or ""
    said = " ".join(said.split())[:200]
    if status in (413, 507) or (status in (402, 403) and _QUOTA.search(said)):
        return _quota(repo_id, said)
    if status == 402:
        owner = repo_id.partition("/")[0]
        return f"the plan of {owner} does not cover {repo_id}{_because(said)}"
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return (
            "the access token is not valid any more: log in with `hf auth login --force`, or set "
            "HF_TOKEN to a new one"
        )
    if status == 403:
        return (
            f"no right to write to {repo_id}{_because(said)}: take a token that may write, or a "
            "name under your own account or organisation"
        )
    if status == 409:
        return f"the name {repo_id} is taken{_because(said)}: choose another"
    if status == 429:
        return f"the Hub asks to slow down{_because(said)}: wait some minutes, then {AGAIN}"
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        return f"{repo_id} does not exist, or the token may not see it"
    if isinstance(error, BadRequestError) or status == 400:
        return f"the Hub refuses {repo_id}{_because(said or join_lines(error))}"
    if status >= 500:
        return (
            f"the Hub failed with status {status}{_because(said)}; nothing of {repo_id} was "
            f"committed: {AGAIN}"
        )
    return f"{repo_id} was not uploaded: {join_lines(error)}"


def _quota(repo_id: str, said: str) -> str:
    owner = repo_id.partition("/")[0]
    return (
        f"{owner} has no room left on the Hub for {repo_id}{_because(said)}; nothing of it was "
        "committed: free some storage or upload with --public, which has more"
    )


def _because(said: str) -> str:
    return f" ({said.rstrip('.')})" if said else ""


def _innermost(error: BaseException) -> BaseException:
    """The Hub's answer, where the client wrapped it in an error of its own."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
