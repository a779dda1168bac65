"""`label2label push`: upload a model, a dataset and the Space to the Hub, one commit each."""

from __future__ import annotations

import argparse
import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
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
    is_listed,
    model_repository,
    space_repository,
)

_EMPTY = {".gitattributes", "README.md"}  # files that the Hub puts into a new repository
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_AGAIN = "run the same command again: files that arrived are not sent twice"
_HINTS = {  # by status of the Hub's response
    401: "log in with `hf auth login --force`, or set HF_TOKEN to a token that is valid",
    402: "see the plan of its owner",
    403: "use a token with write permission, or a name under your own account or organisation",
    404: "it does not exist, or the token has no access to it",
    409: "choose another name",
    429: f"wait some minutes, then {_AGAIN}",
}


def push_command(args: argparse.Namespace) -> int:
    """Run `label2label push`; return 0.

    Nothing is uploaded before all files, names of repositories and write permissions are checked.
    """
    repositories = describe(args)
    if args.create_pr and args.revision:
        raise UserError("--create-pr opens a pull request to main: leave out --revision")
    if args.dry_run:
        for repository in repositories:
            print("\n".join(list_upload(repository, args.private)))
        return 0
    upload(repositories, args.private, args.revision, args.create_pr)
    return 0


def describe(args: argparse.Namespace) -> list[Repository]:
    """Return the repositories to push; raise UserError for options that do not go together."""
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
        raise UserError(f"--model {folder} is not a folder: push uploads a folder on this machine")
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
    """Return the lines of `--dry-run`: the repository, each file with its size, and the sum."""
    visibility = "private" if private else "public"
    sizes = {
        path: len(content) if isinstance(content, bytes) else content.stat().st_size
        for path, content in repository.files.items()
    }
    lines = [f"{repository.kind} {repository.repo_id} ({visibility} if it is new)"]
    lines += [f"{size:>15,}  {path}" for path, size in sizes.items()]
    return [*lines, f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files"]


def upload(
    repositories: list[Repository],
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
) -> None:
    """Upload repositories, one commit each; files that the Hub has are not sent again.

    The Hub and the account come from `HF_ENDPOINT` and `HF_TOKEN` or `hf auth login`.

    Args:
        repositories: Repositories to upload.
        private: Whether new repositories are private; existing ones stay as they are.
        revision: Branch to commit to, created if missing, or `refs/pr/N`; main by default.
        create_pr: Whether to commit to a new pull request instead of main.

    Raises:
        UserError: The Hub rejects the upload or cannot be reached. A failed upload leaves at most
            an empty repository.
    """
    if not get_token():
        raise UserError(
            "no access token: log in with `hf auth login`, or set HF_TOKEN to a token with write "
            f"permission ({constants.ENDPOINT}/settings/tokens)"
        )
    api = HfApi(library_name="label2label")
    with explained(repositories[0].repo_id):
        caller = api.whoami()
    if caller.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError("the access token is read-only: use one with write permission")
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
            # Raised in the Hub client's HTTP library; users cannot act on it.
            warnings.simplefilter("ignore", DeprecationWarning)
            if revision and not revision.startswith("refs/"):
                api.create_branch(
                    repository.repo_id, repo_type=repository.kind, branch=revision, exist_ok=True
                )
            _commit(api, repository, revision, create_pr)


def _find_repository(
    api: HfApi, repository: Repository, private: bool, revision: str | None, create_pr: bool
) -> bool:
    """Return whether a repository exists; check that a push created it, and write permission."""
    kind, repo_id = repository.kind, repository.repo_id
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return False
    held = {sibling.rfilename for sibling in getattr(info, "siblings", None) or []}
    if held - _EMPTY and repository.mark not in held:
        raise UserError(
            f"{repo_id} is another {kind}, without {repository.mark}: choose another name, or "
            "empty that repository"
        )
    # This call checks write permission. It changes nothing: an empty file is not sent before its
    # commit.
    api.preupload_lfs_files(
        repo_id,
        [CommitOperationAdd("README.md", b"")],
        repo_type=kind,
        # A branch may not exist yet; permission is the same for all branches.
        revision=revision if revision and revision.startswith("refs/") else None,
        create_pr=create_pr,
    )
    if bool(info.private) != private:
        stays = "private" if info.private else "public"
        warnings.warn(
            f"{repo_id} exists and stays {stays}; change that on its settings page", stacklevel=3
        )
    return True


def _commit(api: HfApi, repository: Repository, revision: str | None, create_pr: bool) -> None:
    """Upload and commit one repository's files, and print the result."""
    kind, repo_id = repository.kind, repository.repo_id
    before = api.repo_info(repo_id, repo_type=kind, revision=revision)
    held = api.list_repo_files(repo_id, repo_type=kind, revision=before.sha)
    stale = [p for p in held if p not in repository.files and is_listed(p, repository.owned)]
    # Not `upload_folder`, which may split a large folder into several commits.
    done = api.create_commit(
        repo_id,
        repo_type=kind,
        operations=[
            *(CommitOperationAdd(path, content) for path, content in repository.files.items()),
            *(CommitOperationDelete(path, is_folder=False) for path in stale),
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
    """Turn errors of the Hub's client about `repo_id` into a `UserError` of one line."""
    try:
        yield
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(explain(error, repo_id)) from error


def explain(error: BaseException, repo_id: str) -> str:
    """Return one line that names the cause of a Hub client's error, and what to do about it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the Hub's response, which the client wrapped
    text, hint = join_lines(error), ""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to upload"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such revision: give a branch as --revision, or refs/pr/NUMBER"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = error.response.headers.get("X-Error-Message") or error.server_message or ""
        text = " ".join(said.split())[:200].rstrip(".") or text
        if isinstance(error, RepositoryNotFoundError):
            status = 404  # the Hub answers 401 for private repositories
        hint = _HINTS.get(status, _AGAIN if status >= 500 else "")
    elif isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({text}): check the network, and "
            f"HF_ENDPOINT if it is set; then {_AGAIN}"
        )
    elif isinstance(error, json.JSONDecodeError):
        return (
            f"the server at {constants.ENDPOINT} is not the Hub: check HF_ENDPOINT if it is set, "
            "and whether a proxy asks for a login"
        )
    return f"{repo_id} was not uploaded: {text}" + (f": {hint}" if hint else "")
