// Streams silence with the assemblyai package and prints every event as a line of JSON.
// stream.mjs SOCKET_URL [HTTP_URL]: with HTTP_URL, a token is fetched there and used instead of the key.
import { AssemblyAI } from "assemblyai";

const [socketUrl, httpUrl] = process.argv.slice(2);
const out = (event, value) => console.log(JSON.stringify({ event, value }));
const client = new AssemblyAI({ apiKey: "k", streamingBaseUrl: httpUrl });
const options = { websocketBaseUrl: socketUrl, sampleRate: 16000, formatTurns: true, connectTimeout: 5000 };
if (process.env.LLM_GATEWAY) options.llmGateway = JSON.parse(process.env.LLM_GATEWAY);
if (httpUrl) {
  options.token = await client.streaming.createTemporaryToken({ expires_in_seconds: 60 });
  out("token", options.token.length > 0);
} else {
  options.apiKey = "k";
}
const transcriber = client.streaming.transcriber(options);
for (const name of ["open", "turn", "speakerRevision", "llmGatewayResponse", "error"]) {
  transcriber.on(name, (value) => out(name, value instanceof Error ? value.message : value));
}
const closed = new Promise((resolve) =>
  transcriber.on("close", (code, reason) => {
    out("close", [code, reason]);
    resolve();
  }),
);
await transcriber.connect();
let over = false;
closed.then(() => (over = true));
// Until the vendor says that it is over: who closes first gets no close event from the package.
for (let chunk = 0; chunk < 600 && !over; chunk++) {
  try {
    transcriber.sendAudio(new Uint8Array(3200));
  } catch {
    break; // The session is over, and its close event on the way.
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await transcriber.close();
await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 5000))]);
process.exit(0);
