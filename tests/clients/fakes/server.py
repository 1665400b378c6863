"""The server that all fakes use: it records requests, and sends the answer that a test has set for a model."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Call:
    """A tool call of the model."""

    name: str
    arguments: dict
    id: str = ""
    signature: str = ""


@dataclass
class Reply:
    """An answer of a model, independent of the vendor. Only `finish` and `usage` have the vendor's own values."""

    text: str = ""
    thinking: str = ""
    calls: list = field(default_factory=list)
    finish: str = ""
    usage: dict = field(default_factory=dict)
    # Further members of the vendor's answer.
    more: dict = field(default_factory=dict)


@dataclass
class Refusal:
    """An error answer, body and headers as the vendor sends them."""

    status: int
    body: object
    headers: dict = field(default_factory=dict)


@dataclass
class Raw:
    """Raw bytes, of a stream if `stream` is true. `then` is sent after the fake's `go` is set. `cut` closes the connection
    before the body has ended."""

    body: str
    then: str = ""
    stream: bool = True
    cut: bool = False


class Malformed(Exception):
    """A request to which the vendor would answer 400."""


class Fake:
    """The fake server of one vendor. Subclasses write its answers and read its requests."""

    def __init__(self):
        self.requests = []
        self.script = {}
        self.go = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, body = fake.get(self.path)
                self.json(status, body)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.requests.append({"path": self.path, "headers": headers, "body": body})
                try:
                    model, streamed = fake.read(self.path, headers, body)
                except Malformed as error:
                    return self.json(400, fake.error(400, str(error)))
                reply = fake.script.get(model, fake.default())
                if isinstance(reply, list):  # One after the other; the last stays.
                    reply = reply.pop(0) if len(reply) > 1 else reply[0]
                if isinstance(reply, Refusal):
                    return self.json(reply.status, reply.body, reply.headers)
                if isinstance(reply, Raw) and not reply.stream:
                    return self.json(200, reply.body)
                if isinstance(reply, Raw):
                    return self.stream(fake.raw(reply), reply.cut)
                if streamed:
                    return self.stream(fake.events(reply, model, body))
                return self.json(200, fake.answer(reply, model, body))

            def json(self, status, body, headers=None):
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                for name, value in {**fake.headers(), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def stream(self, events, cut=False):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream; charset=utf-8")
                self.send_header("transfer-encoding", "chunked")
                for name, value in fake.headers().items():
                    self.send_header(name, value)
                self.end_headers()
                for event in events:
                    data = event.encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                if not cut:
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.close_connection = True
                    self.wfile.flush()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def raw(self, reply):
        yield reply.body
        if reply.then:
            self.go.wait(30)
            self.go.clear()
            yield reply.then

    def last(self):
        """The body of the newest request."""
        return self.requests[-1]["body"]

    # Each vendor's own:

    def default(self):
        return Reply(text="Hello there.")

    def headers(self):
        return {}

    def get(self, path):
        return 404, self.error(404, f"nothing at {path}")

    def read(self, path, headers, body):
        """Checks a request. Returns its model, and whether it asks for a stream."""
        raise NotImplementedError

    def answer(self, reply, model, body):
        raise NotImplementedError

    def events(self, reply, model, body):
        raise NotImplementedError

    def error(self, status, message):
        raise NotImplementedError


def thirds(text):
    """A text in three pieces, as in a stream; no piece if the text is empty."""
    step = max(1, -(-len(text) // 3))
    return [text[at : at + step] for at in range(0, len(text), step)]
