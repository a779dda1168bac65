"""A Hub on this machine: the HTTP API that huggingface_hub's client uses, over real sockets.

    with HubServer() as hub:
        hub.add_user("someone", token="a-token")
        ...  # HF_ENDPOINT=hub.endpoint HF_TOKEN=a-token HF_HUB_DISABLE_XET=1

`hub.fail(method, pattern, status)` makes the next such requests fail; `hub.requests` lists all. The
storage of large files listens on another port, whose signed addresses refuse requests with a token.
Xet's protocol is not supported.
"""

from .server import HubServer
from .state import Repository

__all__ = ["HubServer", "Repository"]
