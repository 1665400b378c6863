// A dashboard: every call of the daemon, live; after a drop it goes on where it was.
import WebSocket from "ws";

const url = process.argv[2] ?? "ws://127.0.0.1:7700";
const once = process.argv.includes("--once");
let cursor;

function connect() {
  const socket = new WebSocket(`${url}/v1/subscribe`, "sidetone.v1");
  socket.on("open", () => {
    const resume = cursor && { cursor }; // nothing is missed, nothing comes twice
    socket.send(JSON.stringify({ id: "1", type: "subscribe", calls: "*", include: ["turns"], resume }));
  });
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    cursor = frame.cursor ?? cursor;
    switch (frame.type) {
      case "snapshot": // a call that was open before we came
        return console.log(frame.call_id, "has", frame.state.turns?.length ?? 0, "turns");
      case "turn.final":
      case "turn.revised":
        return console.log(frame.call_id, frame.turn.speaker, frame.turn.text);
      case "insight.updated":
        return console.log(frame.call_id, frame.insight.analysis, JSON.stringify(frame.insight.value));
      case "call.completed":
        console.log(frame.call_id, "completed");
        return once && process.exit(0);
      case "error":
        return console.error(frame.code, frame.message);
    }
  });
  socket.on("error", () => {});
  socket.on("close", (code) => code >= 4400 || setTimeout(connect, 500)); // 1001, 1006, 1013: come back
}

connect();
