"""What to do where the Hugging Face hub cannot be reached."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse
from urllib.request import getproxies


def expect_no_network() -> None:
    """Where the name of the hub does not resolve, its libraries look in their caches at once and not after a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are not imported yet
        constants.HF_HUB_OFFLINE = True
