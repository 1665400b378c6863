"""Controls a headless Chromium through its DevTools protocol. Knows nothing of Sidetone."""

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack

from websockets.sync.client import connect

PATH = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
]


class Browser:
    """The browser and its one page."""

    def __init__(self, profile):
        self.process = subprocess.Popen(
            [PATH, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("Chromium ended before it listened")
        self.open_sockets = ExitStack()
        self.socket = self.open_sockets.enter_context(connect(found.group(1), max_size=None, compression=None))
        self.asked, self.session, self.requests, self.troubles = 0, None, [], []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.asked += 1
        frame = {"id": self.asked, "method": method, "params": params}
        if self.session:
            frame["sessionId"] = self.session
        self.socket.send(json.dumps(frame))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.asked:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.note(answer.get("method"), answer.get("params"))

    def note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            self.troubles.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.troubles.append(params["entry"])

    def open(self, url, width=1280, height=800, scheme="light"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def run(self, script):
        """The value of an expression of the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script, within=60):
        """Waits until the expression is true, and returns it; an element is true."""
        script = f"(value => value instanceof Node || value)({script})"
        deadline = time.time() + within
        while not (value := self.run(script)):
            assert time.time() < deadline, f"not within {within} s: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def press(self, key):
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def close(self):
        self.open_sockets.close()
        self.process.kill()
        self.process.wait()
