"""Serve a Hub as slow as a network: `python -m tests.hub.hub_server TOKEN`, until it is ended.

It prints its address, then the method, path and status of each request.
"""

import sys
import time

from . import HubServer

with HubServer(part_size=500_000, delay=0.02) as hub:
    hub.add_user("someone", token=sys.argv[1])
    print(hub.endpoint, flush=True)
    printed = 0
    while True:
        for request in hub.requests[printed:]:
            print(*request, flush=True)
            printed += 1
        time.sleep(0.005)
