// A dashboard: every call of the daemon, live; after a drop it goes on where it was.
import WebSocket from "ws";

const url = process.argv[2] ?? "ws://127.0.0.1:7700";
const once = process.argv.includes("--once");
let cursor;

const showTurn = (call, turn) => console.log(call, turn.speaker, turn.text);
const showInsight = (call, insight) => console.log(call, insight.analysis, JSON.stringify(insight.value));

function connect() {
  const socket = new WebSocket(`${url}/v1/subscribe`, "sidetone.v1");
  socket.on("open", () => {
    const resume = cursor && { cursor }; // nothing is missed, nothing comes twice
    socket.send(JSON.stringify({ id: "1", type: "subscribe", calls: "*", include: ["turns"], resume }));
  });
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    const call = frame.call_id;
    cursor = frame.cursor ?? cursor;
    switch (frame.type) {
      case "snapshot": // a call that was open before we came
        frame.state.turns?.forEach((turn) => showTurn(call, turn));
        // Of a per-turn analysis there is one insight a turn; the others have a value.
        return Object.values(frame.state.insights).forEach((insight) => insight.value && showInsight(call, insight));
      case "turn.final":
      case "turn.revised":
        return showTurn(call, frame.turn);
      case "insight.updated":
        return showInsight(call, frame.insight);
      case "call.completed":
        console.log(call, "completed");
        return once && process.exit(0);
      case "error":
        return console.error(frame.code, frame.message);
    }
  });
  socket.on("error", () => {});
  socket.on("close", (code) => code >= 4400 || setTimeout(connect, 500)); // 1001, 1006, 1013: come back
}

connect();
