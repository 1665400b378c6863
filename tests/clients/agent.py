"""A voice agent: says what it hears, and gets insights back on the same socket."""
import asyncio, json, sys, uuid
import websockets

TURNS = [("agent", "Thank you for calling, how can I help?"),
         ("customer", "My order is late again and I am really annoyed."),
         ("agent", "I am sorry. It will arrive tomorrow, and I refund the shipping."),
         ("customer", "Great, that helps a lot. Thank you!")]

async def main(url):
    call = f"py-agent-{uuid.uuid4().hex[:8]}"                # a call of its own for every run
    stream = f"{url}/v1/ingest?call_id={call}&stream_id=s_1&analyses=summary,sentiment"
    async for socket in websockets.connect(stream):           # connects again after a drop
        try:
            welcome = json.loads(await socket.recv())
            # After a drop: from the last turn that is known to be durable, inclusive. What comes twice counts once.
            for order in range(welcome["acked"] or 0, len(TURNS)):
                speaker, text = TURNS[order]
                await socket.send(json.dumps({
                    "type": "turn", "turn_order": order, "speaker": speaker, "text": text,
                    "start_ms": order * 3000, "end_ms": order * 3000 + 2500}))
            await socket.send(json.dumps({"type": "end", "reason": "hangup"}))
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "insight.updated":        # act on it: coach, route, escalate
                    print(frame["insight"]["analysis"], json.dumps(frame["insight"]["value"]))
                elif frame["type"] == "call.completed":
                    return print("completed")
                elif frame["type"] == "error":
                    print(frame["code"], frame["message"], file=sys.stderr)
        except websockets.ConnectionClosed:
            continue

asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7700"))
