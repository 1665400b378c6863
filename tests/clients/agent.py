"""A voice agent: sends what is said, and gets insights back on the same socket."""
import asyncio, json, sys, uuid, websockets

TURNS = [("agent", "Thank you for calling, how can I help?"),
         ("customer", "My order is late again and I am really annoyed."),
         ("agent", "I am sorry. It will arrive tomorrow, and I refund the shipping."),
         ("customer", "Great, that helps a lot. Thank you!")]

async def main(url):
    call = f"py-agent-{uuid.uuid4().hex[:8]}"
    async for socket in websockets.connect(f"{url}/v1/ingest?call_id={call}&stream_id=s_1"):  # reconnects after a drop
        try:
            acked = json.loads(await socket.recv())["acked"] or 0  # the last durable turn; a turn sent twice counts once
            for order, (speaker, text) in list(enumerate(TURNS))[acked:]:
                await socket.send(json.dumps({"type": "turn", "turn_order": order, "speaker": speaker, "text": text}))
            await socket.send(json.dumps({"type": "end", "reason": "hangup"}))
            async for message in socket:
                frame = json.loads(message)
                if frame["type"] == "insight.updated":  # act on it: coach, route, escalate
                    print(frame["insight"]["analysis"], json.dumps(frame["insight"]["value"]))
                elif frame["type"] == "call.completed":
                    return print("completed")
                elif frame["type"] == "error":
                    print(frame["code"], frame["message"], file=sys.stderr)
        except websockets.ConnectionClosed:
            continue

asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7700"))
