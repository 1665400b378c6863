"""The vendor's JavaScript package, which requires `wss:`, with the daemon's self-signed certificate."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import BINARY, CALL, FINALS, NO_RECORDINGS, recordings, seconds, some_recordings

FOLDER = Path(os.environ.get("SIDETONE_CLIENTS_JS", "target/clients/js"))
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules" / "assemblyai").is_dir(), reason="no node, or no package"
)


@pytest.fixture
def certificate(tmp_path):
    subprocess.run([BINARY, "cert", "--self-signed", "--dir", tmp_path / "tls"], check=True, capture_output=True)
    return tmp_path / "tls"


def secure(certificate):
    return f'[tls]\ncert = "{certificate}/cert.pem"\nkey = "{certificate}/key.pem"\n'


def node(certificate, *arguments, **more):
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate / "cert.pem"), **more}
    done = subprocess.run(
        ["node", FOLDER / "stream.mjs", *arguments], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [(line["event"], line.get("value")) for line in map(json.loads, done.stdout.splitlines())]


def test_the_package_hears_every_turn_over_tls(start, certificate):
    daemon = start.daemon(start.vendor(), secure(certificate))
    assert daemon.url.startswith("https://")
    events = node(certificate, daemon.ws.replace("127.0.0.1", "localhost") + "/v3/ws")
    assert events[0][0] == "open" and events[0][1]["id"] == CALL[0][1]["id"]
    turns = [value for event, value in events if event == "turn"]
    assert turns == [message for _, message in CALL if message["type"] == "Turn"]
    assert not [value for event, value in events if event == "error"]
    assert events[-1] == ("close", [1000, "Session Ended"])


@pytest.mark.skipif(not recordings(), reason=NO_RECORDINGS)
def test_recordings_over_tls_give_the_same_events_as_direct_sessions(start, certificate):
    """Each session plays the next recording. For a direct session, the package's check for `wss:` is removed."""
    some = some_recordings()
    direct, behind = (start.vendor(*some, more=["--pace", "audio"]) for _ in range(2))
    daemon = start.daemon(behind, secure(certificate))
    hosts = [direct.ws, daemon.ws.replace("127.0.0.1", "localhost")]
    heard_in_all = 0
    with ThreadPoolExecutor(2) as pool:
        for path in some:
            more = {"AUDIO_SECONDS": str(seconds(path) + 1)}
            expected, heard = pool.map(lambda host: node(certificate, host + "/v3/ws", **more), hosts)
            assert expected[0][0] == "open" and expected[-1] == ("close", [1000, "Session Ended"]), path.stem
            assert len(expected) > 10 and heard == expected, path.stem
            heard_in_all += len(heard)
    print(f"{len(some)} recordings, {heard_in_all} events")


def test_token_request_works_and_does_not_reveal_the_vendors_key(start, certificate, tmp_path):
    (tmp_path / "key").write_text("the-real-key")
    vendor = start.vendor(more=["--require-key", "the-real-key"])
    daemon = start.daemon(vendor, secure(certificate), stt=f'api_key = "file:{tmp_path}/key"')
    socket = daemon.ws.replace("127.0.0.1", "localhost") + "/v3/ws"
    events = node(certificate, socket, daemon.url.replace("127.0.0.1", "localhost"))
    assert events[0] == ("token", True)
    assert len([event for event, _ in events if event == "turn"]) == 4 * FINALS


def test_answers_reach_the_packages_handler(start, certificate, llm):
    daemon = start.daemon(start.vendor(), secure(certificate) + llm.config())
    question = {"model": "fast", "messages": [{"role": "user", "content": "{{turn}}"}], "max_tokens": 50}
    events = node(certificate, daemon.ws.replace("127.0.0.1", "localhost") + "/v3/ws", LLM_GATEWAY=json.dumps(question))
    answers = [value for event, value in events if event == "llmGatewayResponse"]
    assert sorted(answer["turn_order"] for answer in answers) == list(range(FINALS))
    assert not [value for event, value in events if event == "error"]
