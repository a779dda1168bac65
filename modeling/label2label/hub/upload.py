"""`label2label push`: a model, the Space and a dataset to the Hub, each as one commit."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError, join_lines
from label2label.hub.repositories import (
    Repository,
    dataset_repository,
    default_space,
    model_repository,
    space_repository,
)

_EMPTY = {".gitattributes", "README.md"}  # what the Hub puts into a new repository
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_QUOTA = re.compile(
    r"storage|quota|limit reached|exceed|too large|upgrade your plan", re.IGNORECASE
)
_AGAIN = "run the same command again: what arrived is kept, and is not sent twice"


def push_command(args: argparse.Namespace) -> int:
    """Run `label2label push`.

    Everything is checked on this machine first, then every repository's name and the right to
    write to it, and only then is anything uploaded.

    Args:
        args: `model`, `onnx`, `dataset`, `space` (folders or None), `repo_id`, `dataset_id`,
            `space_id`, `results` (JSON files), `trained_on` (names or None), `private`,
            `revision`, `create_pr`, `dry_run`, `right_to_redistribute`.

    Returns:
        The exit code, 0.

    Raises:
        UserError: an argument or a folder will not do, or the Hub refuses.
    """
    repositories = describe(args)
    if args.create_pr and args.revision:
        raise UserError("--create-pr opens a pull request to main: give it without --revision")
    if args.dry_run:
        for repository in repositories:
            print("\n".join(list_upload(repository, args.private)))
        return 0
    upload(repositories, args.private, args.revision, args.create_pr)
    return 0


def describe(args: argparse.Namespace) -> list[Repository]:
    """Return the model's, the dataset's and the Space's repository, as far as asked for.

    Args:
        args: see `push_command`.

    Raises:
        UserError: none is asked for, options do not go together, or a folder will not do.
    """
    if not (args.repo_id or args.dataset_id or args.space_id):
        raise UserError("nothing to push: give --repo-id, --dataset-id or --space-id")
    if bool(args.dataset) != bool(args.dataset_id):
        raise UserError("--dataset and --dataset-id go together: a folder and its OWNER/NAME")
    if not args.repo_id and (args.model or args.onnx) and not (args.space_id and args.onnx):
        raise UserError("--model and --onnx need --repo-id, the OWNER/NAME to upload to")
    if not args.repo_id and (args.results or args.trained_on):
        raise UserError("--results and --trained-on are for the model's card: give --repo-id")
    if args.space and not args.space_id:
        raise UserError("--space needs --space-id, the OWNER/NAME to upload to")
    folder = Path(find_checkpoint(args.model))
    if not folder.is_dir():
        raise UserError(f"--model {folder} is no folder: push uploads a folder on this machine")
    onnx = Path(args.onnx) if args.onnx else None
    repositories = []
    if args.repo_id:
        results = [Path(path) for path in args.results or ()]
        repositories.append(model_repository(folder, args.repo_id, onnx, results, args.trained_on))
    if args.dataset_id:
        dataset, right = Path(args.dataset), args.right_to_redistribute
        repositories.append(
            dataset_repository(dataset, args.dataset_id, right_to_redistribute=right)
        )
    if args.space_id:
        space = Path(args.space) if args.space else default_space()
        repositories.append(space_repository(space, args.space_id, folder, onnx))
    return repositories


def list_upload(repository: Repository, private: bool) -> list[str]:
    """Return lines that say what would be uploaded: name, each file with its size, and the sum."""
    visibility = "private" if private else "public"
    sizes = {path: repository.size(path) for path in repository.files}
    lines = [f"{repository.kind} {repository.repo_id} ({visibility} if it is new)"]
    lines += [f"{size:>15,}  {path}" for path, size in sizes.items()]
    return [*lines, f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files"]


def upload(
    repositories: list[Repository],
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
) -> None:
    """Upload repositories, each as one commit; what is there already is not sent again.

    `HF_ENDPOINT` and `HF_TOKEN` (or the token of `hf auth login`) say where and as whom.

    Args:
        repositories: to upload.
        private: whether new ones are private; those that exist stay as they are.
        revision: branch to commit to, made where it does not exist, or `refs/pr/N`; main by
            default.
        create_pr: commit to a new pull request and not to main.

    Raises:
        UserError: the Hub refuses or cannot be reached; what was not committed leaves no trace but
            an empty repository.
    """
    if not get_token():
        raise _no_token()
    api = HfApi(library_name="label2label")
    with explained(repositories[0].repo_id):
        caller = api.whoami()
    if caller.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError("the access token may only read: take one that may write")
    missing = []
    for repository in repositories:
        with explained(repository.repo_id):
            if not _find_repository(api, repository, private, revision, create_pr):
                missing.append(repository)
    for repository in missing:
        with explained(repository.repo_id):
            api.create_repo(
                repository.repo_id,
                repo_type=repository.kind,
                private=private,
                space_sdk=repository.sdk,
            )
    for repository in repositories:
        with explained(repository.repo_id), warnings.catch_warnings():
            # Of its HTTP library, to whoever writes the client.
            warnings.simplefilter("ignore", DeprecationWarning)
            if revision and not revision.startswith("refs/"):
                api.create_branch(
                    repository.repo_id, repo_type=repository.kind, branch=revision, exist_ok=True
                )
            _commit(api, repository, revision, create_pr)


def _find_repository(
    api: HfApi, repository: Repository, private: bool, revision: str | None, create_pr: bool
) -> bool:
    """Tell whether a repository exists, and check that a push made it and may write to it."""
    kind, repo_id = repository.kind, repository.repo_id
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return False
    held = {sibling.rfilename for sibling in getattr(info, "siblings", None) or []}
    if held - _EMPTY and repository.mark not in held:
        raise UserError(
            f"the name {repo_id} is taken by another {kind}, which has no {repository.mark}: "
            "choose another, or empty that one"
        )
    # The Hub asks for the right to write before it says how a file is to be sent. An empty file is
    # never sent ahead of its commit, so that this changes nothing.
    api.preupload_lfs_files(
        repo_id,
        [CommitOperationAdd("README.md", b"")],
        repo_type=kind,
        # A branch may not be there yet; the right is the same to all of them.
        revision=revision if revision and revision.startswith("refs/") else None,
        create_pr=create_pr,
    )
    if bool(info.private) != private:
        stays = "private" if info.private else "public"
        warnings.warn(
            f"{repo_id} exists and stays {stays}: its settings page changes that", stacklevel=3
        )
    return True


def _commit(api: HfApi, repository: Repository, revision: str | None, create_pr: bool) -> None:
    """Upload one repository's files and commit them, or say that nothing changed."""
    kind, repo_id = repository.kind, repository.repo_id
    before = api.repo_info(repo_id, repo_type=kind, revision=revision)
    held = api.list_repo_files(repo_id, repo_type=kind, revision=before.sha)
    # One commit, and not `upload_folder`, which may split a large folder into several.
    done = api.create_commit(
        repo_id,
        repo_type=kind,
        operations=[
            *(CommitOperationAdd(path, content) for path, content in repository.files.items()),
            *(CommitOperationDelete(path, is_folder=False) for path in repository.stale(held)),
        ],
        commit_message=repository.message,
        revision=revision,
        create_pr=create_pr,
    )
    where = done.pr_url or f"{constants.ENDPOINT}/{_PREFIXES[kind]}{repo_id}"
    what = "unchanged" if done.oid == before.sha else f"commit {done.oid[:7]}"
    print(f"{kind} {where}: {what}")


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
        raise _no_token() from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(explain(error, repo_id)) from error


def _no_token() -> UserError:
    return UserError(
        "no access token: log in with `hf auth login`, or set HF_TOKEN to a token that may write "
        f"({constants.ENDPOINT}/settings/tokens)"
    )


def explain(error: BaseException, repo_id: str) -> str:
    """Say in one line what was wrong and what to do, for an error of the Hub's client.

    Args:
        error: as the client raised it.
        repo_id: the repository that was asked for.
    """
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the Hub's answer, which the client wrapped
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hub: unset it to upload"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such revision: give a branch as --revision, or refs/pr/NUMBER"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, repo_id)
    text = join_lines(error)
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        if "/xet-" in str(error) and "404" in str(error):
            return f"{constants.ENDPOINT} does not speak Xet: set HF_HUB_DISABLE_XET=1"
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({text}): check the network, and "
            f"HF_ENDPOINT if it is set; then {_AGAIN}"
        )
    if isinstance(error, json.JSONDecodeError):
        return (
            f"what answers at {constants.ENDPOINT} is not the Hub: check HF_ENDPOINT if it is set, "
            "and whether a proxy asks for a login"
        )
    if "LFS batch API" in text and _QUOTA.search(text):
        return _no_room(repo_id, f" ({text})")
    return f"{repo_id} was not uploaded: {text}"


def _explain_status(error: HfHubHTTPError, repo_id: str) -> str:
    status, owner = error.response.status_code, repo_id.partition("/")[0]
    said = error.response.headers.get("X-Error-Message") or error.server_message or ""
    because = f" ({' '.join(said.split())[:200].rstrip('.')})" if said else ""
    if status in (413, 507) or (status in (402, 403) and _QUOTA.search(said)):
        return _no_room(repo_id, because)
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return (
            "the access token is not valid any more: log in with `hf auth login --force`, or set "
            "HF_TOKEN to a new one"
        )
    if status >= 500:
        return (
            f"the Hub failed with status {status}{because}; nothing of {repo_id} was committed: "
            f"{_AGAIN}"
        )
    return {
        400: f"the Hub refuses {repo_id}{because or f' ({join_lines(error)})'}",
        401: f"{repo_id} does not exist, or the token may not see it",
        402: f"the plan of {owner} does not cover {repo_id}{because}",
        403: f"no right to write to {repo_id}{because}: take a token that may write, or a name "
        "under your own account or organisation",
        404: f"{repo_id} does not exist, or the token may not see it",
        409: f"the name {repo_id} is taken{because}: choose another",
        429: f"the Hub asks to slow down{because}: wait some minutes, then {_AGAIN}",
    }.get(status, f"{repo_id} was not uploaded: {join_lines(error)}")


def _no_room(repo_id: str, because: str) -> str:
    return (
        f"{repo_id.partition('/')[0]} has no room left on the Hub for {repo_id}{because}; nothing "
        "of it was committed: free some storage or upload with --public, which has more"
    )
