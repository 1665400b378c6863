"""Real speech from end to end: `sidetone stream`, the proxy, a real recogniser, turns, insights."""

import asyncio
import importlib.util
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import BINARY

missing = [name for name in ("pocketsphinx", "moonshine_voice") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def test_a_wav_file_becomes_turns_and_insights(start):
    import recogniser

    ready, ports = threading.Event(), []
    loop = asyncio.new_event_loop()

    def started(port):
        ports.append(port)
        ready.set()

    threading.Thread(target=lambda: loop.run_until_complete(recogniser.serve(started)), daemon=True).start()
    assert ready.wait(60)
    daemon = start.daemon(SimpleNamespace(ws=f"ws://127.0.0.1:{ports[0]}"))
    assets = Path(importlib.util.find_spec("moonshine_voice").origin).parent / "assets"
    audio = assets / "clone-test.wav"
    done = subprocess.run(
        [BINARY, "stream", audio, "--to", daemon.url, "--call-id", "spoken"],
        capture_output=True, text=True, timeout=180,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    call = daemon.completed("spoken", within=60)
    turns = daemon.turns("spoken")
    said = " ".join(turn["text"] for turn in turns)
    assert turns and len(said.split()) > 5, said
    assert all(turn["start_ms"] <= turn["end_ms"] for turn in turns)
    assert "summary" in call["insights"], call
