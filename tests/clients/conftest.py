"""Fixtures of the client tests: the real binary, a fake vendor that plays recordings, and an LLM that answers at once."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BINARY = os.environ.get("SIDETONE_BIN", "target/debug/sidetone")
RECORDINGS = Path(os.environ.get("SIDETONE_RECORDINGS", "../shared/recordings"))
GOLDEN = Path(__file__).parent.parent / "golden" / "stt"

# An invented call with every message of the protocol.
CALL = [
    (0, {"type": "Begin", "id": "5f1c0b7e-92d4-4d0e-8c39-0d2b7a6f1e21", "expires_at": 1790221526}),
    *[
        (1000 * order + step * 100, {
            "turn_order": order, "turn_is_formatted": step == 3, "end_of_turn": step >= 2,
            "transcript": text[step], "end_of_turn_confidence": 0.9 if step >= 2 else 0.1,
            "words": [
                {"start": 1000 * order + 90 * index, "end": 1000 * order + 90 * index + 80, "text": word,
                 "confidence": 0.9, "word_is_final": step >= 2, "speaker": "A" if order % 2 else "B"}
                for index, word in enumerate((text[step] or "good").split())
            ],
            "speaker_label": "A" if order % 2 else "B", "type": "Turn",
        })
        for order, text in enumerate([
            ["", "good morning", "good morning how can i help", "Good morning. How can I help?"],
            ["", "my card", "my card is blocked", "My card is blocked."],
            ["", "i am", "i am sorry to hear that", "I am sorry to hear that."],
            ["", "can you", "can you send a new one", "Can you send a new one?"],
        ])
        for step in range(4)
    ],
    (4500, {"type": "SpeakerRevision", "revisions": [{"turn_order": 2, "speaker_label": "B", "words": []}]}),
    (5000, {"type": "Termination", "audio_duration_seconds": 5, "session_duration_seconds": 5}),
]
FINALS = 4


NO_RECORDINGS = f"no recordings in {RECORDINGS}: SIDETONE_RECORDINGS names their folder"
# One second of mu-law silence at 8 kHz: the longest audio message that the vendor accepts.
SECOND = b"\xff" * 8000


def recordings():
    """Every recording of the folder; none if the folder does not exist."""
    return sorted(RECORDINGS.glob("[!.l]*.jsonl")) if RECORDINGS.is_dir() else []


def some_recordings():
    """One recording of each set; with SIDETONE_ALL_RECORDINGS all of them, which takes minutes."""
    if os.environ.get("SIDETONE_ALL_RECORDINGS"):
        return recordings()
    return list({path.stem.split("-")[0]: path for path in recordings()}.values())


def seconds(recording):
    """Seconds of audio before the recording's `Termination`, rounded down, so that the client ends the session."""
    *_, last = recording.read_text().splitlines()
    return (json.loads(last)["at_ms"] - 1) // 1000


class Process:
    """A running process of the binary. The test stops it."""

    def __init__(self, *arguments, **more):
        self.process = subprocess.Popen([BINARY, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **more)
        line = self.process.stdout.readline()
        found = re.search(r"listening on (\S+)", line)
        assert found, f"the first line is {line!r}"
        self.url = found.group(1)
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    @property
    def ws(self):
        return self.url.replace("http", "ws", 1)

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def turns(self, call):
        turns, after = [], ""
        while True:
            page = self.get(f"/v1/calls/{call}/turns?limit=500{after}")
            turns += page["turns"]
            if page["next"] is None:
                return turns
            after = f"&after={page['next']}"

    def completed(self, call, within=60):
        deadline = time.time() + within
        while time.time() < deadline:
            try:
                found = self.get(f"/v1/calls/{call}")
                if found["state"] == "completed":
                    return found
            except urllib.error.HTTPError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{call} did not complete within {within} s")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Llm:
    """An OpenAI-compatible server that answers with the end of the question."""

    def __init__(self):
        llm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                llm.asked.append(body)
                llm.open.wait()
                text = "echo: " + str(body["messages"][-1]["content"])[-80:]
                answer = json.dumps({
                    "id": "a1", "object": "chat.completion", "created": 1, "model": body["model"],
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
                }).encode()
                try:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # Sidetone has closed the connection, which it may do.

            def log_message(self, *_):
                pass

        self.asked = []
        self.open = threading.Event()
        self.open.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def config(self):
        return (
            f'[endpoints.mock]\nprovider = "openai_compatible"\n'
            f'base_url = "http://127.0.0.1:{self.server.server_port}/v1"\n[models.fast]\ncandidates = ["mock/m"]\n'
        )


@pytest.fixture
def llm():
    llm = Llm()
    yield llm
    llm.open.set()
    llm.server.shutdown()


@pytest.fixture
def start(tmp_path):
    """Starts processes that end with the test: `start.vendor(…)`, `start.daemon(…)`."""
    running = []

    class Start:
        def call(self, name="call", doubles=True):
            """The invented call. Without doubles, each turn ends once, as with the vendor's newer models."""
            path = tmp_path / f"{name}.jsonl"
            rows = [
                (at, message) for at, message in CALL
                if doubles or message.get("turn_is_formatted", True) or not message["end_of_turn"]
            ]
            path.write_text("".join(json.dumps({"at_ms": at, "message": message}) + "\n" for at, message in rows))
            return path

        def vendor(self, *files, speed="20", more=()):
            process = Process("replay", "--as-stt", *(files or [self.call()]), "--speed", speed, *more)
            running.append(process)
            return process

        def daemon(self, vendor, config="", stt="", more=(), environment=None):
            folder = tmp_path / f"daemon{len(running)}"
            folder.mkdir()
            text = f'[stt]\nupstream = "{vendor.ws}"\n{stt}\n[storage]\ndir = "{folder}/journal"\n{config}'
            (folder / "sidetone.toml").write_text(text)
            process = Process(
                "serve", "--config", folder / "sidetone.toml", "--listen", "127.0.0.1:0", *more,
                env={**os.environ, **(environment or {})},
            )
            running.append(process)
            return process

    yield Start()
    for process in reversed(running):
        process.stop()
