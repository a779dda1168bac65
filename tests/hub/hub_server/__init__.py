"""A Hub on this machine: the HTTP API that huggingface_hub's client speaks, over real sockets.

    with HubServer() as hub:
        hub.add_user("someone", token="a-token")
        ...  # HF_ENDPOINT=hub.endpoint HF_TOKEN=a-token HF_HUB_DISABLE_XET=1

What it answers to:

| request | what for |
|---|---|
| `GET /api/whoami-v2` | whose token this is, and what it may do |
| `POST /api/repos/create` | a repository, with a first commit as the real Hub makes |
| `POST /api/validate-yaml` | the metadata of a card (`card_rules`) |
| `GET /api/{kind}s/{id}[/revision/{rev}]` | head, files, visibility |
| `POST /api/{kind}s/{id}/preupload/{rev}` | which files go to LFS, and what is there already |
| `POST /{id}.git/info/lfs/objects/batch` | where to put those files: one request, or parts |
| `PUT` and `GET` on the storage's address | their bytes, with ranges; presigned: no token allowed |
| `POST /api/{kind}s/{id}/commit/{rev}` | one commit from lines of JSON, all of it or nothing |
| `POST /api/{kind}s/{id}/branch/{name}` | a branch |
| `GET .../tree/{rev}`, `POST .../paths-info/{rev}` | files with size and digests, in pages |
| `HEAD`, `GET /{id}/resolve/{rev}/{path}` | a file: `ETag`, `X-Repo-Commit`; for LFS a redirect |

Repositories of models have no prefix in addresses; datasets have `datasets/`, Spaces `spaces/`. The
storage listens on another port, so that a client which sends it the token is found out. Xet's own
protocol is not spoken: clients set `HF_HUB_DISABLE_XET=1`, as behind a proxy that does not know it.

`hub.fail(method, pattern, status)` makes the next such requests fail, and `hub.requests` lists what
was asked for.
"""

from .server import HubServer
from .state import Repository

__all__ = ["HubServer", "Repository"]
