"""Validates our fixtures with the vendors' own Python types, which shows that the fixtures have the vendors' format.

Left out: Twilio, Recall.ai and Zoom, whose packages have no types for these messages; AssemblyAI's are in test_decoding.py.
"""

import json
from types import SimpleNamespace
from typing import get_args

import pytest
from conftest import GOLDEN


def frames(dialect, *names):
    """The frames of a dialect's fixtures that belong to the vendor: `end` is Sidetone's own."""
    for name in names:
        for line in (GOLDEN / dialect / f"{name}.jsonl").read_text().splitlines():
            frame = json.loads(line)
            if frame.get("type") not in ("end", "meta"):
                yield frame


def of_union(union, key):
    """The members of a union of models, by the value that they have at `key`."""
    found = {}
    for member in get_args(union):
        for value in get_args(member.model_fields[key].annotation) if key in member.model_fields else ():
            found[value] = member
    return found


def strictly(model, frame):
    """The frame as an object of the package, validated here because the classes of some packages validate nothing."""
    from pydantic import TypeAdapter

    return TypeAdapter(model).validate_python(frame)


@pytest.mark.parametrize("dialect, version, names", [
    ("deepgram", "v1", ["full", "channels"]), ("deepgram_flux", "v2", ["full"]),
])
def test_deepgram(dialect, version, names):
    client = pytest.importorskip(f"deepgram.listen.{version}.socket_client")
    kinds = of_union(getattr(client, f"{version.upper()}SocketClientResponse"), "type")
    seen = set()
    for frame in frames(dialect, *names):
        strictly(kinds[frame["type"]], frame)
        seen.add(frame["type"])
    assert {"v1": {"Results", "UtteranceEnd", "Metadata"}, "v2": {"TurnInfo"}}[version] <= seen


def test_openai_realtime():
    realtime = pytest.importorskip("openai.types.realtime")
    from pydantic import TypeAdapter

    adapter = TypeAdapter(realtime.RealtimeServerEvent)
    for frame in frames("openai_realtime", "full", "diarized"):
        # The package has a type only for sessions of the speech-to-speech kind.
        if not frame["type"].startswith("session."):
            assert type(adapter.validate_python(frame)).__name__ != "dict"


def test_speechmatics():
    models = pytest.importorskip("speechmatics.rt._models")
    for frame in frames("speechmatics", "full", "channels"):
        kind = models.ServerMessageType(frame["message"])
        if kind in (models.ServerMessageType.ADD_TRANSCRIPT, models.ServerMessageType.ADD_PARTIAL_TRANSCRIPT):
            result = models.TranscriptResult.from_message(frame)
            assert result.metadata.transcript == frame["metadata"]["transcript"]
            assert [one.alternatives[0].content for one in result.results] == [
                one["alternatives"][0]["content"] for one in frame["results"]
            ]


def test_gladia():
    types = pytest.importorskip("gladiaio_sdk.v2.live.generated_types")
    for frame in frames("gladia", "full"):
        message = types.create_live_v2_web_socket_message_from_dict(frame)
        assert type(message).__name__ != "LiveV2UnknownWebSocketMessage" or frame["type"] == "error", frame
        if frame["type"] == "transcript":
            assert message.data.utterance.text == frame["data"]["utterance"]["text"]


def test_soniox():
    realtime = pytest.importorskip("soniox.types.realtime")
    for frame in frames("soniox", "full"):
        event = realtime.RealtimeEvent.validate_event(json.dumps(frame))
        assert [token.text for token in event.tokens] == [token["text"] for token in frame.get("tokens", [])]


def test_elevenlabs():
    types = pytest.importorskip("elevenlabs.types")
    kinds = {
        "committed_transcript": types.CommittedTranscriptPayload,
        "committed_transcript_with_timestamps": types.CommittedTranscriptWithTimestampsPayload,
        "diarized_transcript": types.DiarizedTranscript,
    }
    seen = set()
    for frame in frames("elevenlabs", "full", "plain", "diarized", "undeclared"):
        if model := kinds.get(frame["message_type"]):
            strictly(model, frame)
            seen.add(frame["message_type"])
    assert seen == set(kinds)


def test_google():
    speech = pytest.importorskip("google.cloud.speech_v2.types.cloud_speech")
    for frame in frames("google", "full", "resumed"):
        # Left out: the names of the first version, which the dialect accepts too, and an HTTP error.
        if "error" not in frame and "startTime" not in json.dumps(frame):
            response = speech.StreamingRecognizeResponse.from_json(json.dumps(frame))
            finals = [bool(one.get("isFinal")) for one in frame.get("results", [])]
            assert [one.is_final for one in response.results] == finals


def test_aws():
    deserialize = pytest.importorskip("amazon_transcribe.deserialize")
    parser = deserialize.TranscribeStreamingEventParser()
    results = 0
    for frame in frames("aws", "full"):
        if "Transcript" not in frame:
            continue
        event = parser.parse(SimpleNamespace(
            headers={":message-type": "event", ":event-type": "TranscriptEvent"}, payload=json.dumps(frame).encode(),
        ))
        for ours, theirs in zip(frame["Transcript"]["Results"], event.transcript.results, strict=True):
            results += 1
            assert (theirs.result_id, theirs.is_partial) == (ours["ResultId"], ours["IsPartial"])
            assert [item.content for item in theirs.alternatives[0].items] == [
                item["Content"] for item in ours["Alternatives"][0]["Items"]
            ]
    assert results >= 4
