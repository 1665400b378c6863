"""A dashboard: every call of the daemon, live; after a drop it goes on where it was."""
import asyncio, json, sys
import websockets

async def main(url):
    cursor = None
    async for socket in websockets.connect(f"{url}/v1/subscribe", subprotocols=["sidetone.v1"]):
        try:
            ask = {"id": "1", "type": "subscribe", "calls": "*", "include": ["turns", "partials"]}
            if cursor:
                ask["resume"] = {"cursor": cursor}           # nothing is missed, nothing comes twice
            await socket.send(json.dumps(ask))
            async for text in socket:
                frame = json.loads(text)
                cursor = frame.get("cursor", cursor)
                match frame["type"]:
                    case "snapshot":                         # a call that was open before we came
                        print(frame["call_id"], "has", len(frame["state"].get("turns", [])), "turns")
                    case "turn.final" | "turn.revised":
                        print(frame["call_id"], frame["turn"].get("speaker"), frame["turn"]["text"])
                    case "turn.partial":                     # may be dropped when we are slow
                        print(frame["call_id"], "...", frame["text"], end="\r")
                    case "insight.updated":
                        insight = frame["insight"]
                        print(frame["call_id"], insight["analysis"], json.dumps(insight["value"]))
                    case "call.completed":
                        print(frame["call_id"], "completed", flush=True)
                        if "--once" in sys.argv:
                            return
                    case "error":
                        print(frame["code"], frame["message"], file=sys.stderr)
        except websockets.ConnectionClosed:
            continue

asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7700"))
