"""A dashboard: every call of the daemon, live; after a drop it continues where it was."""
import asyncio, json, sys, websockets

async def main(url):
    cursor = None
    async for socket in websockets.connect(f"{url}/v1/subscribe", subprotocols=["sidetone.v1"]):
        try:
            resume = cursor and {"cursor": cursor}  # nothing is missed, nothing comes twice
            await socket.send(json.dumps({"type": "subscribe", "calls": "*", "resume": resume}))
            async for message in socket:
                frame = json.loads(message)
                kind, call, cursor = frame["type"], frame.get("call_id"), frame.get("cursor", cursor)
                for turn in frame.get("state", {}).get("turns", []):  # a snapshot of a call that began before
                    print(call, turn.get("speaker"), turn["text"])
                if kind in ("turn.final", "turn.revised"):
                    print(call, frame["turn"].get("speaker"), frame["turn"]["text"])
                elif kind == "insight.updated":
                    print(call, frame["insight"]["analysis"], json.dumps(frame["insight"]["value"]))
                elif kind == "call.completed":
                    print(call, "completed", flush=True)
                    if "--once" in sys.argv: return
                elif kind == "error":
                    print(frame["code"], frame["message"], file=sys.stderr)
        except websockets.ConnectionClosed:
            continue

asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7700"))
