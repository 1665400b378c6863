"""Compares the daemon's decoding of AssemblyAI's messages with the vendor's own package: the daemon must accept each message
that the package accepts, and count each turn that the package reports as final."""

import copy
import json
import random
import subprocess

import pytest
from conftest import BINARY, CALL, GOLDEN, recordings

base = pytest.importorskip("assemblyai.streaming.v3._base")


def decode(lines):
    """The result of Sidetone's decoder for each line."""
    done = subprocess.run(
        [BINARY, "dialects", "assemblyai", "--decode", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True,
        check=True,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(lines)
    return said


def theirs(line):
    """The package's event, `None` if it ignores the message, or its error."""
    try:
        return base._BaseStreamingClient._parse_message(json.loads(line))
    except Exception as refusal:  # pydantic's, of either major version
        return refusal


def samples():
    yield from (json.dumps(message) for _, message in CALL)
    for path in [*recordings(), GOLDEN / "assemblyai" / "full.jsonl"]:
        for line in path.read_text().splitlines():
            message = json.loads(line)
            if "recording" not in message:
                yield json.dumps(message.get("message", message), ensure_ascii=False)


def test_every_final_turn_is_counted():
    lines = list(samples())
    finals = 0
    for line, ours in zip(lines, decode(lines), strict=True):
        event = theirs(line)
        assert not isinstance(event, Exception), line[:200]
        assert "error" not in ours, (ours, line[:200])
        if type(event).__name__ == "TurnEvent":
            kind = "final" if event.end_of_turn else "partial"
            [said] = ours["events"]
            assert said[kind]["turn"] == str(event.turn_order)
            assert said[kind]["speaker"] == event.speaker_label
            if event.end_of_turn:
                finals += 1
                final = said["final"]
                assert (final["text"], final["formatted"]) == (event.transcript, event.turn_is_formatted)
                assert [(word["text"], word["start_ms"], word["end_ms"], word.get("speaker")) for word in final["words"]] == [
                    (word.text, word.start, max(word.start, word.end), word.speaker) for word in event.words
                ]
        elif type(event).__name__ == "SpeakerRevisionEvent":
            assert [said["revise"]["turn"] for said in ours["events"]] == [str(one.turn_order) for one in event.revisions]
        elif type(event).__name__ == "BeginEvent":
            assert ours["events"] == [{"begin": {"vendor_session": event.id}}]
        elif type(event).__name__ == "TerminationEvent":
            assert "end" in ours["events"][0]
    print(f"{len(lines)} messages, {finals} finals")
    assert finals >= 8


VALUES = [None, 0, 1, 7, -3, 2.0, 1.5, True, False, "", "7", "2.5", "x", "true", "off", [], {}, [1], ["x"], {"a": 1}]


def mutations(message, chance):
    """Variants of the message: at any depth, one field is removed or has another value."""
    mutated = copy.deepcopy(message)
    at = mutated
    while True:
        if isinstance(at, dict) and at:
            key = chance.choice(list(at))
        elif isinstance(at, list) and at:
            key = chance.randrange(len(at))
        else:
            return mutated
        if isinstance(at[key], (dict, list)) and at[key] and chance.random() < 0.7:
            at = at[key]
            continue
        if chance.random() < 0.3:
            del at[key]
        else:
            at[key] = chance.choice(VALUES)
        return mutated


def test_what_the_package_accepts_is_accepted():
    chance = random.Random(4)
    messages = [message for _, message in CALL] + [
        json.loads(line) for line in (GOLDEN / "assemblyai" / "full.jsonl").read_text().splitlines()
    ]
    lines = [json.dumps(mutations(chance.choice(messages), chance)) for _ in range(20_000)]
    accepted = finals = 0
    for line, ours in zip(lines, decode(lines), strict=True):
        event = theirs(line)
        if event is None or isinstance(event, Exception):
            continue
        accepted += 1
        assert "error" not in ours, (ours, line)
        if type(event).__name__ == "TurnEvent" and event.end_of_turn:
            finals += 1
            assert ours["events"][0]["final"]["turn"] == str(event.turn_order), line
    print(f"{accepted} of {len(lines)} mutated messages accepted by both, {finals} finals among them")
    assert accepted > 5_000 and finals > 500
