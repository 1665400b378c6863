// A voice agent: says what it hears, and gets insights back on the same socket.
import { randomUUID } from "node:crypto";
import WebSocket from "ws";

const url = process.argv[2] ?? "ws://127.0.0.1:7700";
const call = `node-agent-${randomUUID().slice(0, 8)}`; // a call of its own for every run
const turns = [
  ["agent", "Thank you for calling, how can I help?"],
  ["customer", "My order is late again and I am really annoyed."],
  ["agent", "I am sorry. It will arrive tomorrow, and I refund the shipping."],
  ["customer", "Great, that helps a lot. Thank you!"],
];

function connect() {
  const socket = new WebSocket(`${url}/v1/ingest?call_id=${call}&stream_id=s_1&analyses=summary,sentiment`);
  const send = (frame) => socket.send(JSON.stringify(frame));
  let completed = false;
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    if (frame.type === "welcome") {
      // After a drop: from the last turn that is known to be durable, inclusive. What comes twice counts once.
      for (let order = frame.acked ?? 0; order < turns.length; order++) {
        const [speaker, text] = turns[order];
        send({ type: "turn", turn_order: order, speaker, text, start_ms: order * 3000, end_ms: order * 3000 + 2500 });
      }
      send({ type: "end", reason: "hangup" });
    } else if (frame.type === "insight.updated") {
      // Act on it: coach, route, escalate.
      console.log(frame.insight.analysis, JSON.stringify(frame.insight.value));
    } else if (frame.type === "call.completed") {
      completed = true;
      console.log("completed");
    } else if (frame.type === "error") {
      console.error(frame.code, frame.message);
    }
  });
  socket.on("error", () => {});
  socket.on("close", (code) => completed || code >= 4400 || setTimeout(connect, 500));
}

connect();
