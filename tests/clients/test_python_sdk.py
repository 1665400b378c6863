"""The vendor's Python package, with nothing changed but `api_host`."""

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

import pytest
import websockets
from conftest import CALL, FINALS, recordings

sdk = pytest.importorskip("assemblyai.streaming.v3")
models = pytest.importorskip("assemblyai.streaming.v3.models")

SILENCE = b"\0" * 3200


def question(model="fast"):
    content = "Turn: {{turn}} By: {{ speaker }} So far: {{ transcript }}"
    messages = [models.LLMGatewayMessage(role="user", content=content)]
    return models.LLMGatewayConfig(model=model, messages=messages, max_tokens=100)


def stream(host, chunks=200, options=None, **parameters):
    """Every event of a session, as the synchronous client hands it out."""
    events, over = [], threading.Event()
    options = sdk.StreamingClientOptions(api_host=host, connect_timeout=5, **(options or {"api_key": "k"}))
    client = sdk.StreamingClient(options)
    for kind in sdk.StreamingEvents.__members__.values():
        client.on(kind, lambda _, event: events.append(event))
    client.on(sdk.StreamingEvents.Termination, lambda *_: over.set())
    client.on(sdk.StreamingEvents.Error, lambda *_: over.set())
    client.connect(sdk.StreamingParameters(sample_rate=16000, format_turns=True, **parameters))
    for _ in range(chunks):
        if over.wait(0.02):
            break
        client.stream(SILENCE)
    client.disconnect(terminate=True)
    return events


async def stream_async(host):
    events, over = [], asyncio.Event()
    client = sdk.AsyncStreamingClient(sdk.StreamingClientOptions(api_host=host, api_key="k", connect_timeout=5))
    for kind in sdk.StreamingEvents.__members__.values():
        client.on(kind, lambda _, event: events.append(event))
    client.on(sdk.StreamingEvents.Termination, lambda *_: over.set())
    await client.connect(sdk.StreamingParameters(sample_rate=16000, format_turns=True))
    for _ in range(200):
        if over.is_set():
            break
        await client.stream(SILENCE)
        await asyncio.sleep(0.02)
    await client.disconnect(terminate=True)
    return events


async def hear(url):
    """Every message at a raw client, and how the session closed."""
    heard = []
    async with websockets.connect(url, additional_headers={"Authorization": "k"}) as socket:
        try:
            while True:
                heard.append(await socket.recv())
        except websockets.ConnectionClosed as closed:
            return heard, (closed.rcvd.code, closed.rcvd.reason)


def answers(events):
    return [event for event in events if type(event).__name__ == "LLMGatewayResponseEvent"]


def test_both_clients_hear_the_same_as_without_us(start):
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
    # A second session of a call that is over is relayed all the same, as another call.
    stream(daemon.ws)
    assert daemon.completed(f"{call}~2")["meta"]["continues"] == call


@pytest.mark.skipif(not recordings(), reason="no recordings here")
def test_every_recording_byte_for_byte(start):
    vendor = start.vendor(*recordings(), speed="max")
    daemon = start.daemon(vendor)

    async def both(path):
        query = f"/v3/ws?sample_rate=16000&recording={path.stem}"
        direct, proxied = await asyncio.gather(hear(vendor.ws + query), hear(daemon.ws + query))
        assert proxied == direct, path.stem
        return [json.loads(message) for message in direct[0]]

    async def every():
        return await asyncio.gather(*map(both, recordings()))

    for messages in asyncio.run(every()):
        finals = {str(m["turn_order"]) for m in messages if m.get("end_of_turn") and m["transcript"]}
        call = messages[0]["id"]
        daemon.completed(call, within=120)
        assert {turn["vendor_turn"] for turn in daemon.turns(call)} == finals, call
    print(f"{len(recordings())} recordings")


@pytest.mark.skipif(not recordings(), reason="no recordings here")
def test_every_recording_as_the_packages_objects(start):
    """Each session is the next recording, at either vendor: the package has no way to ask for one by name."""
    # One of each set, unless all are asked for: that takes two minutes.
    some = list({path.stem.split("-")[0]: path for path in recordings()}.values())
    some = recordings() if os.environ.get("SIDETONE_ALL_RECORDINGS") else some
    direct, behind = (start.vendor(*some, speed="max") for _ in range(2))
    daemon = start.daemon(behind)

    async def session(host):
        events = []
        client = sdk.AsyncStreamingClient(
            sdk.StreamingClientOptions(api_host=host, api_key="k", connect_timeout=20, terminate_timeout=60)
        )
        for kind in sdk.StreamingEvents.__members__.values():
            client.on(kind, lambda _, event: events.append(event))
        await client.connect(sdk.StreamingParameters(sample_rate=16000, format_turns=True))
        await client.disconnect(terminate=True)
        return events

    async def both():
        return await asyncio.gather(session(direct.ws), session(daemon.ws))

    for path in some:
        expected, heard = asyncio.run(both())
        assert type(expected[-1]).__name__ == "TerminationEvent" and len(expected) > 10, path.stem
        # How long the session lasted is the one thing that is not recorded.
        assert heard[:-1] == expected[:-1] and type(heard[-1]) is type(expected[-1]), path.stem


def test_a_token_of_ours_is_taken_where_the_package_puts_it(start, tmp_path):
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
    """The configuration of an LLM in a process of its own, which is stopped."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_LLM], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    config = "".join(iter(process.stdout.readline, "\n"))
    os.kill(process.pid, signal.SIGSTOP)
    yield config
    process.kill()
    process.wait()


def test_a_frozen_llm_delays_nothing(start, frozen):
    vendor = start.vendor()
    daemon = start.daemon(vendor, frozen)
    heard = []

    async def timed(url):
        async with websockets.connect(url, additional_headers={"Authorization": "k"}) as socket:
            try:
                while True:
                    message = json.loads(await socket.recv())
                    heard.append((time.monotonic(), message))
            except websockets.ConnectionClosed:
                return
    gateway = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "{{turn}}"}], "max_tokens": 9})
    from urllib.parse import quote
    began = time.monotonic()
    asyncio.run(timed(f"{daemon.ws}/v3/ws?sample_rate=16000&format_turns=true&llm_gateway={quote(gateway)}"))
    turns = [at - began for at, message in heard if message["type"] == "Turn"]
    # The recording's last turn is at 3.3 s, played 20 times faster; an answer is waited for at the very end, 3 s.
    assert len(turns) == 4 * FINALS and max(turns) < 2, turns
    kinds = [message["type"] for _, message in heard]
    assert "LLMGatewayResponse" not in kinds[: kinds.index("SpeakerRevision")]
    late = [message for _, message in heard if message["type"] == "LLMGatewayResponse"]
    assert [message["data"]["failed"]["code"] for message in late] == ["timeout"] * FINALS
    assert heard[-1][1]["type"] == "Termination"


def test_insights_come_down_the_same_socket_when_asked_for(start):
    daemon = start.daemon(start.vendor(speed="2"), "[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n")
    from urllib.parse import quote
    parameter = quote(json.dumps({"call_id": "mine", "analyses": ["summary"], "results": "insights", "meta": {"team": "x"}}))
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000&sidetone={parameter}"))
    found = [json.loads(message) for message in heard if '"LLMGatewayResponse"' in message]
    assert found and all(one["data"]["type"].startswith("insight.") and "error" not in one for one in found)
    assert daemon.completed("mine")["meta"] == {"team": "x"}
    assert closed == (1000, "Session Ended")


def test_the_vendors_refusals_arrive_as_its_own(start):
    vendor = start.vendor(more=["--require-key", "good"])
    daemon = start.daemon(vendor)
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000"))
    assert json.loads(heard[0])["error_code"] == 1008 and closed == (1008, "See Error message for details")
    vendor.stop()
    heard, closed = asyncio.run(hear(f"{daemon.ws}/v3/ws?sample_rate=16000"))
    assert json.loads(heard[0])["error_code"] == 3005 and closed == (3005, "See Error message for details")
