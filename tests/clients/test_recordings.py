"""Real conversations through the proxy: a plain client gets the same bytes, and both Python clients get the same objects."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import NO_RECORDINGS, SECOND, recordings, seconds, some_recordings
from test_python_sdk import hear

sdk = pytest.importorskip("assemblyai.streaming.v3")
pytestmark = pytest.mark.skipif(not recordings(), reason=NO_RECORDINGS)

OPTIONS = {"api_key": "k", "connect_timeout": 20, "terminate_timeout": 120}
PARAMETERS = {"sample_rate": 8000, "encoding": "pcm_mulaw", "format_turns": True}


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


def listen(client, events):
    for kind in sdk.StreamingEvents.__members__.values():
        client.on(kind, lambda _, event: events.append(event))


def synchronous(host, audio):
    """Every event of a session that streams so many seconds, as the synchronous client delivers it."""
    events, over = [], threading.Event()
    client = sdk.StreamingClient(sdk.StreamingClientOptions(api_host=host, **OPTIONS))
    listen(client, events)
    client.on(sdk.StreamingEvents.Termination, lambda *_: over.set())
    client.connect(sdk.StreamingParameters(**PARAMETERS))
    for _ in range(audio):
        client.stream(SECOND)
    client.disconnect(terminate=True)
    assert over.wait(60), events[-1:]
    return events


def asynchronous(host, audio):
    """The same, as the asynchronous client does."""

    async def session():
        events = []
        client = sdk.AsyncStreamingClient(sdk.StreamingClientOptions(api_host=host, **OPTIONS))
        listen(client, events)
        await client.connect(sdk.StreamingParameters(**PARAMETERS))
        for _ in range(audio):
            await client.stream(SECOND)
        await client.disconnect(terminate=True)
        return events

    return asyncio.run(session())


@pytest.mark.parametrize("client", [synchronous, asynchronous])
def test_recordings_as_the_packages_objects(start, client):
    """The audio determines when turns come. Each session plays the next recording: the package cannot request one by name."""
    some = some_recordings()
    direct, behind = (start.vendor(*some, more=["--pace", "audio"]) for _ in range(2))
    daemon = start.daemon(behind)
    heard_in_all = 0
    with ThreadPoolExecutor(2) as pool:
        for path in some:
            expected, heard = pool.map(lambda host: client(host, seconds(path)), [direct.ws, daemon.ws])
            assert type(expected[-1]).__name__ == "TerminationEvent" and len(expected) > 10, path.stem
            assert heard == expected, path.stem
            heard_in_all += len(heard)
    print(f"{client.__name__}: {len(some)} recordings, {heard_in_all} events")
