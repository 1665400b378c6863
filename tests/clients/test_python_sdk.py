"""The vendor's Python package, with only `api_host` changed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import websockets
from conftest import CALL, FINALS

sdk = pytest.importorskip("assemblyai.streaming.v3")
models = pytest.importorskip("assemblyai.streaming.v3.models")

SILENCE = b"\0" * 3200


def question(model="fast"):
    content = "Turn: {{turn}} By: {{ speaker }} So far: {{ transcript }}"
    messages = [models.LLMGatewayMessage(role="user", content=content)]
    return models.LLMGatewayConfig(model=model, messages=messages, max_tokens=100)


def speaks(events):
    """True while the client still sends audio: until the first turn has ended. If the package sends audio to a session that
    the vendor has just ended, it drops the events that it has not delivered yet."""
    return not any(getattr(event, "end_of_turn", False) for event in events)


def stream(host, options=None, **parameters):
    """Every event of a session, as the synchronous client delivers it."""
    events, over = [], threading.Event()
    options = sdk.StreamingClientOptions(api_host=host, connect_timeout=60, **(options or {"api_key": "k"}))
    client = sdk.StreamingClient(options)
    for kind in sdk.StreamingEvents.__members__.values():
        client.on(kind, lambda _, event: events.append(event))
    client.on(sdk.StreamingEvents.Termination, lambda *_: over.set())
    client.on(sdk.StreamingEvents.Error, lambda *_: over.set())
    client.connect(sdk.StreamingParameters(sample_rate=16000, format_turns=True, **parameters))
    while speaks(events) and not over.wait(0.02):
        client.stream(SILENCE)
    assert over.wait(60), events[-1:]
    client.disconnect(terminate=True)
    return events


async def stream_async(host):
    events, over = [], asyncio.Event()
    client = sdk.AsyncStreamingClient(sdk.StreamingClientOptions(api_host=host, api_key="k", connect_timeout=60))
    for kind in sdk.StreamingEvents.__members__.values():
        client.on(kind, lambda _, event: events.append(event))
    client.on(sdk.StreamingEvents.Termination, lambda *_: over.set())
    await client.connect(sdk.StreamingParameters(sample_rate=16000, format_turns=True))
    while speaks(events) and not over.is_set():
        await client.stream(SILENCE)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(over.wait(), 60)
    await client.disconnect(terminate=True)
    return events


async def hear(url):
    """Every message that a plain WebSocket client receives, and how the session closed."""
    heard = []
    async with websockets.connect(url, additional_headers={"Authorization": "k"}) as socket:
        try:
            while True:
                heard.append(await socket.recv())
        except websockets.ConnectionClosed as closed:
            return heard, (closed.rcvd.code, closed.rcvd.reason)


def answers(events):
    return [event for event in events if type(event).__name__ == "LLMGatewayResponseEvent"]


def test_both_clients_get_the_same_events_as_direct_sessions(start):
    vendor = start.vendor()
    daemon = start.daemon(vendor)
    direct = stream(vendor.ws)
    assert len([event for event in direct if type(event).__name__ == "TurnEvent"]) == 4 * FINALS
    assert stream(daemon.ws) == direct
    assert asyncio.run(stream_async(daemon.ws)) == asyncio.run(stream_async(vendor.ws))


def test_the_begin_id_is_the_call(start):
    vendor = start.vendor()
    daemon = start.daemon(vendor)
    stream(daemon.ws)
    call = CALL[0][1]["id"]
    daemon.completed(call)
    assert [turn["text"] for turn in daemon.turns(call)] == [
        "Good morning. How can I help?", "My card is blocked.", "I am sorry to hear that.", "Can you send a new one?",
    ]
    assert [turn["speaker"] for turn in daemon.turns(call)] == ["B", "A", "B", "A"]
    # A second session with the id of a completed call is relayed too, and becomes another call.
    stream(daemon.ws)
    assert daemon.completed(f"{call}~2")["meta"]["continues"] == call


def test_daemons_token_is_accepted_where_the_package_sends_it(start, tmp_path):
    (tmp_path / "key").write_text("the-real-key")
    vendor = start.vendor(more=["--require-key", "the-real-key"])
    daemon = start.daemon(
        vendor, '[server]\nkey = "env:OUR_KEY"\n', stt=f'api_key = "file:{tmp_path}/key"',
        environment={"OUR_KEY": "our-own-key-of-some-length"},
    )
    request = urllib.request.Request(
        daemon.url + "/v3/token?expires_in_seconds=60", headers={"Authorization": "our-own-key-of-some-length"}
    )
    with urllib.request.urlopen(request) as answer:
        token = json.load(answer)["token"]
    for credential, taken in (({"token": token}, True), ({"api_key": "our-own-key-of-some-length"}, True), ({"api_key": "x"}, False)):
        events = stream(daemon.ws, **{"options": credential})
        assert (len([event for event in events if type(event).__name__ == "TurnEvent"]) == 4 * FINALS) is taken, credential


def test_an_answer_comes_once_a_turn(start, llm):
    daemon = start.daemon(start.vendor(), llm.config())
    events = stream(daemon.ws, llm_gateway=question())
    found = answers(events)
    assert sorted(answer.turn_order for answer in found) == list(range(FINALS))
    assert found[0].data["choices"][0]["message"]["content"].startswith("echo: ")
    prompts = [body["messages"][-1]["content"] for body in llm.asked if "So far:" in str(body["messages"][-1]["content"])]
    assert any("Turn: My card is blocked. By: A" in prompt for prompt in prompts), prompts
    assert type(events[-1]).__name__ == "TerminationEvent"


def test_an_unknown_model_fails_each_turn_and_nothing_else(start, llm):
    daemon = start.daemon(start.vendor(), llm.config())
    found = answers(stream(daemon.ws, llm_gateway=question("nobody")))
    assert [answer.data["failed"]["code"] for answer in found] == ["model_not_found"] * FINALS


SERVE_LLM = "from conftest import Llm; print(Llm().config(), flush=True); import threading; threading.Event().wait()"


@pytest.fixture
def frozen():
    """The configuration of an LLM in a process of its own, which is then stopped (SIGSTOP)."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_LLM], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    config = "".join(iter(process.stdout.readline, "\n"))
    os.kill(process.pid, signal.SIGSTOP)
    yield config
    process.kill()
    process.wait()


class Stepwise:
    """A vendor that sends each message only after the client has received the previous one, and records the times."""

    def __init__(self):
        self.heard, self.said = asyncio.Event(), []

    async def serve(self, socket):
        for _, message in CALL:
            if message["type"] == "Termination":
                break
            self.heard.clear()
            self.said.append(time.monotonic())
            await socket.send(json.dumps(message))
            await asyncio.wait_for(self.heard.wait(), 60)
        await socket.send(json.dumps(CALL[-1][1]))
        await socket.close(1000, "Session Ended")


async def delays(vendor, url):
    """The time that each message took from the vendor to the client, and every message that the client received."""
    vendor.heard.clear()
    vendor.said, took, heard = [], [], []
    async with websockets.connect(url, additional_headers={"Authorization": "k"}) as socket:
        try:
            while True:
                message = json.loads(await socket.recv())
                heard.append(message)
                if message["type"] not in ("LLMGatewayResponse", "Termination"):
                    took.append(time.monotonic() - vendor.said[-1])
                    vendor.heard.set()
        except websockets.ConnectionClosed:
            return took, heard


def test_stopped_llm_delays_no_message(start, frozen):
    gateway = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "{{turn}}"}], "max_tokens": 9})

    async def compared():
        vendor = Stepwise()
        async with websockets.serve(vendor.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            daemon = start.daemon(SimpleNamespace(ws=f"ws://127.0.0.1:{port}"), frozen)
            url = f"{daemon.ws}/v3/ws?sample_rate=16000&format_turns=true"
            without = await delays(vendor, url)
            return without, await delays(vendor, f"{url}&llm_gateway={quote(gateway)}")

    (plain, heard_plain), (took, heard) = asyncio.run(compared())
    assert heard_plain == [message for _, message in CALL]
    # No answer ever comes, so a message that waited for one would have been the last.
    kinds = [message["type"] for message in heard]
    late = [message for message in heard if message["type"] == "LLMGatewayResponse"]
    assert kinds == [message["type"] for _, message in CALL[:-1]] + ["LLMGatewayResponse"] * FINALS + ["Termination"]
    assert [message["data"]["failed"]["code"] for message in late] == ["timeout"] * FINALS
    print(f"a message took {median(plain) * 1e3:.2f} ms without, {median(took) * 1e3:.2f} ms with a frozen LLM (medians)")
    # The daemon stops waiting for answers after 3 s: a message that waited for part of that time would be noticed.
    assert median(took) < median(plain) + 0.25, (plain, took)


def test_insights_come_on_the_same_socket_on_request(start):
    daemon = start.daemon(start.vendor(speed="2"), "[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n")
    parameter = quote(json.dumps({"call_id": "mine", "analyses": ["summary"], "results": "insights", "meta": {"team": "x"}}))
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000&sidetone={parameter}"))
    found = [json.loads(message) for message in heard if '"LLMGatewayResponse"' in message]
    assert found and all(one["data"]["type"].startswith("insight.") and "error" not in one for one in found)
    assert daemon.completed("mine")["meta"] == {"team": "x"}
    assert closed == (1000, "Session Ended")


def test_refusals_of_the_vendor_arrive_unchanged(start):
    vendor = start.vendor(more=["--require-key", "good"])
    daemon = start.daemon(vendor)
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000"))
    assert json.loads(heard[0])["error_code"] == 1008 and closed == (1008, "See Error message for details")
    vendor.stop()
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000"))
    assert json.loads(heard[0])["error_code"] == 3005 and closed == (3005, "See Error message for details")
