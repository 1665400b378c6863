"""Sessions that are recorded live, replayed, and served again as the vendor would; and sources to which the daemon connects."""

import asyncio
import json
import subprocess
import threading
import time

import pytest
import websockets
from conftest import BINARY, CALL
from test_python_sdk import hear, stream

KEPT = ("turn", "text", "speaker", "start_ms", "end_ms")


def kept(turns):
    return [{name: turn.get(name) for name in KEPT} for turn in turns]


def test_what_was_recorded_replays_to_the_same_turns_and_the_same_events(start, tmp_path):
    vendor = start.vendor()
    daemon = start.daemon(vendor, f'[record]\ndir = "{tmp_path}/recorded"\n')
    direct = stream(vendor.ws)
    tape = subprocess.Popen([BINARY, "record", "taped", "--to", daemon.url, "-o", tmp_path / "tape.jsonl"])
    from urllib.parse import quote
    named = quote(json.dumps({"call_id": "taped", "results": "none"}))
    heard, _ = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000&sidetone={named}"))
    daemon.completed("taped")
    turns = kept(daemon.turns("taped"))
    assert len(turns) == 4 and tape.wait(60) == 0
    [recorded] = (tmp_path / "recorded").glob("taped.*.jsonl")
    # The file is written after the call has ended, so wait for it.
    deadline = time.time() + 60
    while (written := recorded.read_text()).count("\n") <= len(heard):
        assert time.time() < deadline, f"{len(heard)} messages, and no more than this: {written}"
        time.sleep(0.05)
    lines = [json.loads(line) for line in written.splitlines()]
    assert lines[0]["recording"]["dialect"] == "assemblyai"
    assert [line["message"] for line in lines[1:]] == [json.loads(message) for message in heard]
    # A replay into a daemon gives the same turns, from the vendor's frames and from the daemon's own format.
    for path, call in ((recorded, "again"), (tmp_path / "tape.jsonl", "once-more")):
        replay = [BINARY, "replay", path, "--to", daemon.url, "--speed", "max", "--call-id", call]
        subprocess.run(replay, check=True, capture_output=True, timeout=60)
        assert kept(daemon.turns(call)) == turns, path
    # A simulated vendor that serves the recording gives the same events.
    assert stream(start.vendor(recorded).ws) == direct


def test_a_source_is_dialled_again_and_its_call_shows_the_gap(start):
    connections = []

    async def emit(socket):
        connections.append(dict(socket.request.headers))
        for order in range(3):
            frame = {"type": "turn", "turn_order": order, "text": f"Turn {order}.", "call": {"id": "from-source"}}
            await socket.send(json.dumps(frame))
        if len(connections) > 1:
            await socket.send(json.dumps({"type": "end", "scope": "call", "call": {"id": "from-source"}}))
            await asyncio.sleep(30)

    ports, loop = [], asyncio.new_event_loop()
    ready = threading.Event()

    async def serve():
        async with websockets.serve(emit, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await asyncio.Future()

    threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True).start()
    assert ready.wait(60)
    daemon = start.daemon(
        start.vendor(),
        f'[[source]]\nurl = "ws://127.0.0.1:{ports[0]}/turns"\ncall_id_at = "/call/id"\nheaders = {{ X-Team = "billing" }}\n',
    )
    daemon.completed("from-source")
    assert [turn["text"] for turn in daemon.turns("from-source")] == ["Turn 0.", "Turn 1.", "Turn 2."] * 2
    events = daemon.get("/v1/calls/from-source/events?after=0")["events"]
    assert [event["cause"] for event in events if event["type"] == "gap"] == ["stt_disconnect"]
    assert len(connections) == 2 and {key.lower(): value for key, value in connections[0].items()}["x-team"] == "billing"


@pytest.mark.parametrize("name", ["sidetone", "deepgram", "zoom"])
def test_dialects_are_listed_the_same_by_command_and_path(start, name):
    daemon = start.daemon(start.vendor())
    listed = daemon.get("/v1/dialects")["dialects"]
    printed = subprocess.run([BINARY, "dialects", "--json"], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed)["dialects"] == listed
    assert name in [dialect["name"] for dialect in listed]
