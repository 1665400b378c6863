"""A dashboard: every call of the daemon, live; after a drop it goes on where it was."""
import asyncio, json, sys
import websockets

def show_turn(call, turn):
    print(call, turn.get("speaker"), turn["text"])

def show_insight(call, insight):
    print(call, insight["analysis"], json.dumps(insight["value"]))

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
                call = frame.get("call_id")
                match frame["type"]:
                    case "snapshot":                         # a call that was open before we came
                        for turn in frame["state"].get("turns", []):
                            show_turn(call, turn)
                        for insight in frame["state"]["insights"].values():
                            if "value" in insight:           # of a per-turn analysis: one a turn
                                show_insight(call, insight)
                    case "turn.final" | "turn.revised":
                        show_turn(call, frame["turn"])
                    case "turn.partial":                     # may be dropped when we are slow
                        print(call, "...", frame["text"], end="\r")
                    case "insight.updated":
                        show_insight(call, frame["insight"])
                    case "call.completed":
                        print(call, "completed", flush=True)
                        if "--once" in sys.argv:
                            return
                    case "error":
                        print(frame["code"], frame["message"], file=sys.stderr)
        except websockets.ConnectionClosed:
            continue

asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7700"))
