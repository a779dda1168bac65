"""`label2label push`: a model, the Space and a dataset to the Hub, each as one commit."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.hub.answers import explained, no_token
from label2label.hub.repository import Repository

_EMPTY = {".gitattributes", "README.md"}  # what the Hub puts into a new repository
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def push_command(args: argparse.Namespace) -> int:
    """Run `label2label push`.

    Everything is checked on this machine first, then every repository's name and the right to
    write to it, and only then is anything uploaded.

    Args:
        args: `model`, `onnx`, `dataset`, `space` (folders or None), `repo_id`, `dataset_id`,
            `space_id`, `private`, `revision`, `create_pr`, `dry_run`, `right_to_redistribute`.

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
            print("\n".join(list_files(repository, args.private)))
        return 0
    upload(repositories, args.private, args.revision, args.create_pr)
    return 0


def describe(args: argparse.Namespace) -> list[Repository]:
    """The repositories that the arguments ask for.

    Args:
        args: see `push_command`.

    Returns:
        Model, dataset and Space, as far as asked for.

    Raises:
        UserError: none is asked for, options do not go together, or a folder will not do.
    """
    if not (args.repo_id or args.dataset_id or args.space_id):
        raise UserError("nothing to push: give --repo-id, --dataset-id or --space-id")
    if bool(args.dataset) != bool(args.dataset_id):
        raise UserError("--dataset and --dataset-id go together: a folder and its OWNER/NAME")
    if not args.repo_id and (args.model or args.onnx) and not (args.space_id and args.onnx):
        raise UserError("--model and --onnx need --repo-id, the OWNER/NAME to upload to")
    if args.space and not args.space_id:
        raise UserError("--space needs --space-id, the OWNER/NAME to upload to")
    repositories = []
    folder = Path(find_checkpoint(args.model))
    if not folder.is_dir():
        raise UserError(f"--model {folder} is no folder: push uploads a folder on this machine")
    onnx = Path(args.onnx) if args.onnx else None
    if args.repo_id:
        from label2label.hub.model_repository import model_repository

        repositories.append(model_repository(folder, args.repo_id, onnx))
    if args.dataset_id:
        from label2label.hub.dataset_repository import dataset_repository

        repositories.append(
            dataset_repository(
                Path(args.dataset),
                args.dataset_id,
                right_to_redistribute=args.right_to_redistribute,
            )
        )
    if args.space_id:
        from label2label.hub.space_repository import default_space, space_repository

        space = Path(args.space) if args.space else default_space()
        repositories.append(space_repository(space, args.space_id, folder, onnx))
    return repositories


def list_files(repository: Repository, private: bool) -> list[str]:
    """Tell what would be uploaded.

    Args:
        repository: to upload.
        private: whether it would be private if it is new.

    Returns:
        Lines: its name, each file with its size, and the sum.
    """
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
        raise no_token()
    api = HfApi(library_name="label2label")
    with explained(repositories[0].repo_id):
        caller = api.whoami()
    if caller.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError("the access token may only read: take one that may write")
    missing = []
    for repository in repositories:
        with explained(repository.repo_id):
            if not find_repository(api, repository, private, revision, create_pr):
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
            commit(api, repository, revision, create_pr)


def find_repository(
    api: HfApi, repository: Repository, private: bool, revision: str | None, create_pr: bool
) -> bool:
    """Look for a repository that an earlier push made, and check the right to write to it.

    Args:
        api: the Hub's client.
        repository: to upload.
        private: whether a new one is private.
        revision: branch or `refs/pr/N` to commit to; main by default.
        create_pr: whether to commit to a new pull request, for which the right to read will do.

    Returns:
        Whether it exists.

    Raises:
        UserError: the name belongs to a repository that no push made.
        HfHubHTTPError: there is no right to write to it.
    """
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
            f"{repo_id} exists and stays {stays}: its settings page changes that", stacklevel=2
        )
    return True


def commit(api: HfApi, repository: Repository, revision: str | None, create_pr: bool) -> None:
    """Upload one repository's files and commit them, or say that nothing changed.

    Args:
        api: the Hub's client.
        repository: which exists.
        revision: branch or `refs/pr/N`; main by default.
        create_pr: commit to a new pull request.
    """
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
