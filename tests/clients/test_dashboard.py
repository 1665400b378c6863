"""The dashboard in a real browser: a live call, its insights and their evidence, a restart of the daemon, keys."""

import json
import os
import signal
import subprocess
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.sync.client import connect

import browser
from conftest import BINARY, Process

if browser.PATH is None and os.environ.get("CI") != "true":
    pytest.skip("SKIPPED: no Chromium (Debian: apt install chromium); the dashboard is not tested", allow_module_level=True)

FORGED = '<img src=x onerror="document.title=\'owned\'">'
SAID = [
    ("agent", "Good morning, how can I help you today?"),
    ("customer", "I am really angry, this is a terrible service and my order is late."),
    ("agent", "I am sorry about that, it is awful. I will send a new one today."),
    (FORGED, f"Great, thank you {FORGED}, that is wonderful and I am very happy now."),
]


@pytest.fixture
def page(tmp_path):
    assert browser.PATH, "CI has to test the dashboard: install chromium"
    page = browser.Browser(tmp_path / "profile")
    yield page
    page.close()


def serve(folder, port=0, config=""):
    (folder / "sidetone.toml").write_text(
        f'[storage]\ndir = "{folder}/journal"\n{config}\n[analyses.summary]\nevery_n_turns = 2\ndebounce_ms = 50\n'
        "[analyses.sentiment]\nevery_n_turns = 1\ndebounce_ms = 50\n")
    return Process("serve", "--config", folder / "sidetone.toml", "--listen", f"127.0.0.1:{port}")


@pytest.fixture
def produce():
    """Makes producers, which end with the test."""
    with ExitStack() as sockets:
        yield lambda *arguments, **more: Producer(sockets, *arguments, **more)


class Producer:
    def __init__(self, sockets, daemon, call, **more):
        url = f"{daemon.ws}/v1/ingest?call_id={call}&stream_id=s_1&results=none"
        self.socket = sockets.enter_context(connect(url, **more))
        assert json.loads(self.socket.recv())["type"] == "welcome"

    def send(self, **frame):
        self.socket.send(json.dumps(frame))

    def turn(self, order):
        speaker, text = SAID[order]
        self.send(type="turn", turn_order=order, speaker=speaker, text=text, start_ms=order * 4000, end_ms=order * 4000 + 3000)


TURNS = "[...document.querySelectorAll('.turn:not(.partial)')].map(turn => turn.innerText)"


def has(page, text):
    return page.until(f"document.body.innerText.includes({json.dumps(text)})")


def test_live_call_is_shown_and_continues_after_a_restart(tmp_path, page, produce):
    daemon = serve(tmp_path)
    try:
        page.open(f"{daemon.url}/")
        has(page, "No call yet")
        page.until("document.querySelector('#state').dataset.is === 'live'")
        call = produce(daemon, "c_1")
        call.send(type="meta", meta={"customer": "Ms. Shah"})
        call.send(type="partial", turn_order=0, speaker="agent", text="Good mor")
        page.until("document.querySelector('.turn.partial')?.innerText.includes('Good mor')")
        call.turn(0)
        call.turn(1)
        page.until(f"{TURNS}.length === 2 && !document.querySelector('.partial')")
        assert "customer" in page.run(f"{TURNS}[1]") and "terrible service" in page.run(f"{TURNS}[1]")
        has(page, "Ms. Shah")
        # Insights with their evidence: a click on the quote shows the turn.
        page.until("document.querySelector('[aria-label=sentiment] .bar.negative')")
        page.until("document.querySelector('.evidence')")
        page.run("[...document.querySelectorAll('.evidence')].find(quote => quote.innerText.includes('terrible')).click()")
        assert "terrible service" in page.until("document.querySelector('.turn.shown mark')?.innerText")
        call.send(type="revise", turn_order=1, text="I am angry, the order is late.")
        page.until(f"{TURNS}[1].includes('the order is late') && {TURNS}[1].includes('corrected')")

        # The daemon is killed. The page says so, reconnects by itself and continues at its position.
        port = int(daemon.url.rsplit(":", 1)[1])
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        page.until("document.querySelector('#state').dataset.is === 'off'")
        daemon = serve(tmp_path, port)
        page.until("document.querySelector('#state').dataset.is === 'live'")
        call = produce(daemon, "c_1")
        call.turn(2)
        call.turn(3)
        page.until(f"{TURNS}.length === 4")
        # Spoken text is shown as text and never interpreted as markup.
        assert page.run("document.querySelectorAll('img').length") == 0
        assert FORGED in page.run(f"{TURNS}[3]") and page.run("document.title") != "owned"
        page.until("document.querySelector('svg.trend polyline')")

        # With the keyboard: to another call, found by its name, and back.
        produce(daemon, "other").send(type="turn", turn_order=0, speaker="b", text="Hello from another call.")
        page.until("document.querySelectorAll('.call').length === 2")
        page.press("/")
        page.type("othe")
        page.until("document.querySelectorAll('.call').length === 1")
        page.press("Escape")
        page.until("document.querySelectorAll('.call').length === 2")
        page.press("k")
        has(page, "Hello from another call.")
        page.press("j")
        page.until(f"{TURNS}.length === 4")

        call.send(type="end", scope="call")
        page.until("document.querySelector('#title').innerText.includes('completed')")
        page.until("[...document.querySelectorAll('.card')].every(card => card.innerText.includes('final'))")

        # A page that is opened after the call has ended shows the same, and the revisions before.
        before = page.run(TURNS)
        page.open("about:blank")
        page.open(f"{daemon.url}/#c_1", width=390, height=780, scheme="dark")
        page.until(f"{TURNS}.length === 4")
        assert [turn.split() for turn in page.run(TURNS)] == [turn.split() for turn in before]
        page.run("document.querySelector('#tabs [data-pane=insights]').click()")
        page.until("document.querySelector('svg.trend polyline')?.getBoundingClientRect().width > 100")
        assert page.run("document.documentElement.scrollWidth") <= 390, "a phone needs no sideways scrolling"
        dark = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert sum(dark) < 150, f"dark is dark: {dark}"
        # The page has contacted only its daemon, and all of its errors are due to the restart.
        own = (daemon.url, daemon.ws, "data:", "about:")
        assert [url for url in page.requests if not url.startswith(own)] == []
        assert [t for t in page.troubles if "WebSocket" not in json.dumps(t)] == []
    finally:
        daemon.stop()


def test_older_events_that_arrive_late_change_nothing(tmp_path, page, produce):
    daemon = serve(tmp_path)
    try:
        page.open(f"{daemon.url}/")
        page.until("document.querySelector('#state').dataset.is === 'live'")
        # The response with older events is delayed until newer events are on the page.
        page.run("""{
            const real = window.fetch;
            const go = new Promise(resolve => window.letGo = resolve);
            window.fetch = async (...asked) => {
                const answer = await real(...asked);
                if (String(asked[0]).includes("/events")) {
                    window.held = true;
                    await go;
                    const json = answer.json.bind(answer);
                    answer.json = async () => {
                        const past = await json();
                        setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => window.shownPast = true)));
                        return past;
                    };
                }
                return answer;
            };
        }""")
        call = produce(daemon, "c_1")
        page.until("document.querySelector('.call')")
        page.run("document.querySelector('.call').click()")
        page.until("window.held === true")
        call.send(type="meta", meta={"customer": "Ms. Shah"})
        call.turn(0)
        has(page, "Ms. Shah")
        page.until(f"{TURNS}.length === 1")
        page.run("letGo()")
        page.until("window.shownPast === true")
        assert "Ms. Shah" in page.run("document.querySelector('#title').innerText")
    finally:
        daemon.stop()


def test_a_key_is_asked_for_and_kept_for_the_tab(tmp_path, page, produce):
    folder = tmp_path / "daemon"
    folder.mkdir()
    os.environ["SIDETONE_TEST_DASHBOARD_KEY"] = key = "sk-dashboard-0123456789abcdef"
    daemon = serve(folder, config='[server]\nkey = "env:SIDETONE_TEST_DASHBOARD_KEY"')
    try:
        call = produce(daemon, "c_1", additional_headers={"authorization": f"Bearer {key}"})
        call.turn(0)
        page.open(f"{daemon.url}/")
        for given in ["wrong", key]:
            page.until("document.querySelector('#ask').open")
            page.run("document.querySelector('#ask input').value = ''; document.querySelector('#ask input').focus()")
            page.type(given)
            page.run("document.querySelector('#ask button').click()")
        page.until(f"{TURNS}.length === 1")
        page.open(f"{daemon.url}/?again")
        page.until(f"{TURNS}.length === 1")
        assert key not in page.run("document.documentElement.outerHTML")
        # The command line takes the key from the environment, and says so if it is missing.
        watch = [BINARY, "watch", "--to", daemon.url, "--json"]
        bare = {name: value for name, value in os.environ.items() if name != "SIDETONE_KEY"}
        refused = subprocess.run(watch, capture_output=True, text=True, timeout=30, env=bare)
        assert refused.returncode == 1 and "SIDETONE_KEY" in refused.stderr, refused
        watching = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True, env={**bare, "SIDETONE_KEY": key})
        try:
            frames = (json.loads(line) for line in watching.stdout)
            assert any(frame["type"] == "snapshot" for frame in frames)
        finally:
            watching.kill()
            watching.wait()
    finally:
        del os.environ["SIDETONE_TEST_DASHBOARD_KEY"]
        daemon.stop()


def elsewhere(stack):
    """The origin of another server, whose page is empty."""
    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Empty))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"


def test_page_of_another_origin_reads_if_it_is_configured(tmp_path, page, produce, monkeypatch):
    key = "sk-elsewhere-0123456789abcdef"
    monkeypatch.setenv("SIDETONE_TEST_DASHBOARD_KEY", key)
    with ExitStack() as stack:
        named, foreign = elsewhere(stack), elsewhere(stack)
        daemon = serve(tmp_path, config=f'[server]\nkey = "env:SIDETONE_TEST_DASHBOARD_KEY"\norigins = ["{named}"]')
        stack.callback(daemon.stop)
        call = produce(daemon, "c_1", additional_headers={"authorization": f"Bearer {key}"})
        call.turn(0)
        question = {"model": "local", "transcript": {"call_id": "c_1"},
                    "messages": [{"role": "user", "content": "What happened?"}]}
        script = f"""(async () => {{
            const ask = (path, more) => fetch("{daemon.url}" + path, {{...more, headers: {{
                authorization: "Bearer {key}", "content-type": "application/json", "x-stainless-lang": "js"}}}});
            try {{
                const calls = await (await ask("/v1/calls")).json();
                const answer = await ask("/v1/chat/completions", {{method: "POST", body: {json.dumps(json.dumps(question))}}});
                const refused = await fetch("{daemon.url}/v1/calls");
                return [calls.calls[0].call_id, (await answer.json()).object, answer.headers.get("sidetone-endpoint"), refused.status];
            }} catch (error) {{
                return String(error);
            }}
        }})()"""
        page.open(f"{named}/")
        assert page.run(script) == ["c_1", "chat.completion", "local", 401]
        page.open(f"{foreign}/")
        assert page.run(script) == "TypeError: Failed to fetch"


def quoting(stack, value):
    """A model that always answers with this value."""
    class Model(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            message = {"role": "assistant", "content": json.dumps(value)}
            body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Model))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_quotes_that_are_not_in_the_transcript_are_marked(tmp_path, page, produce):
    folder = tmp_path / "wish"
    folder.mkdir()
    (folder / "v1.j2").write_text("{{ transcript }}What is wished?")
    (folder / "schema.json").write_text('{"type": "object"}')
    value = {
        "items": [{"id": "a", "evidence": [{"turn": 1, "quote": "A TERRIBLE service … is late"}, {"turn": 1, "quote": "I will sue you"}]}],
        "evidence": [{"turn": 0, "quote": "good morning"}, {"turn": 0, "quote": "good night"}],
    }
    with ExitStack() as stack:
        url = quoting(stack, value)
        config = (f'[endpoints.f]\nprovider = "openai_compatible"\nbase_url = "{url}"\ncapabilities = [{{ model = "m", stream = false }}]\n[models.m]\ncandidates = ["f/m"]\n'
                  f'[routes.r]\nvariants = [{{ name = "a", model = "m" }}]\n[analyses.wish]\ndir = "{folder}"\nroute = "r"\nevery_n_turns = 2\ndebounce_ms = 10\n')
        daemon = serve(tmp_path, config=config)
        stack.callback(daemon.stop)
        page.open(f"{daemon.url}/")
        call = produce(daemon, "c_1")
        call.turn(0)
        call.turn(1)
        page.until("document.querySelectorAll('[aria-label=wish] .evidence').length === 4")
        drawn = "[...document.querySelectorAll('[aria-label=wish] .evidence%s q')].map(quote => quote.textContent)"
        assert page.run(drawn % ".unverified") == ["I will sue you", "good night"]
        assert page.run(drawn % ":not(.unverified)") == ["A TERRIBLE service … is late", "good morning"]
        assert page.run("document.querySelector('[aria-label=wish] .unverified').innerText").endswith("not in the transcript")
        # A click on a quote marks its words, with any letter case and with omitted words; without a match nothing is marked.
        page.run("document.querySelector('[aria-label=wish] .evidence').click()")
        marks = "[...document.querySelectorAll('.turn.shown mark')].map(mark => mark.textContent)"
        assert page.until(f"{marks}.length && {marks}") == ["a terrible service", "is late"]
        page.run("[...document.querySelectorAll('[aria-label=wish] .unverified')].at(-1).click()")
        assert page.run("document.querySelector('.turn.shown').innerText").count("Good morning") == 1
        assert page.run("document.querySelectorAll('.turn.shown mark').length") == 0
