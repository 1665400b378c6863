"""A small server of the v3 protocol that recognises real audio with PocketSphinx. The words are often wrong."""

import asyncio
import json
import uuid
from urllib.parse import parse_qs, urlsplit

import pocketsphinx
import websockets

# Silence that ends a turn, s.
PAUSE = 0.4


class Session:
    """Audio of one client, divided into turns at pauses."""

    def __init__(self, rate):
        self.rate = rate
        self.decoder = pocketsphinx.Decoder(samprate=rate, loglevel="FATAL")
        self.endpointer = pocketsphinx.Endpointer(sample_rate=rate, window=PAUSE)
        self.pending = b""
        self.order = 0
        self.speaking = False

    def words(self):
        return [
            {"start": round(1000 * (self.started + segment.start_frame / 100)),
             "end": round(1000 * (self.started + segment.end_frame / 100)), "text": segment.word.split("(")[0],
             "confidence": 0.5, "word_is_final": True}
            for segment in self.decoder.seg() or [] if not segment.word.startswith(("<", "["))
        ]

    def turn(self, end):
        hypothesis = self.decoder.hyp()
        text = hypothesis.hypstr if hypothesis else ""
        if not text:
            return None
        return {"type": "Turn", "turn_order": self.order, "turn_is_formatted": True, "end_of_turn": end,
                "transcript": text, "end_of_turn_confidence": 1.0 if end else 0.0, "words": self.words() if end else []}

    def take(self, audio, last=False):
        """The messages that result from this audio."""
        self.pending += audio
        size = self.endpointer.frame_bytes
        while len(self.pending) >= size:
            frame, self.pending = self.pending[:size], self.pending[size:]
            yield from self.speech(self.endpointer.process(frame))
        if last:
            yield from self.speech(self.endpointer.end_stream(self.pending) if self.pending else None)
            if self.speaking:
                yield from self.stop()

    def speech(self, speech):
        if speech is not None:
            if not self.speaking:
                self.decoder.start_utt()
                self.started = self.endpointer.speech_start
                self.speaking = True
            self.decoder.process_raw(speech)
        if self.speaking and not self.endpointer.in_speech:
            yield from self.stop()

    def stop(self):
        self.decoder.end_utt()
        self.speaking = False
        if final := self.turn(end=True):
            yield final
            self.order += 1


async def serve_client(socket):
    query = parse_qs(urlsplit(socket.request.path).query)
    session = Session(int(query["sample_rate"][0]))
    await socket.send(json.dumps({"type": "Begin", "id": str(uuid.uuid4()), "expires_at": 4_000_000_000}))
    heard = 0
    async for message in socket:
        if isinstance(message, bytes):
            heard += len(message)
            # Recognition takes long, so it runs in a thread of its own: the socket must answer pings meanwhile.
            for turn in await asyncio.to_thread(lambda: list(session.take(message))):
                await socket.send(json.dumps(turn))
        elif json.loads(message)["type"] == "Terminate":
            for turn in await asyncio.to_thread(lambda: list(session.take(b"", last=True))):
                await socket.send(json.dumps(turn))
            seconds = heard // 2 // session.rate
            end = {"type": "Termination", "audio_duration_seconds": seconds, "session_duration_seconds": seconds}
            await socket.send(json.dumps(end))
            await socket.close(1000, "Session Ended")
            return


async def serve(started):
    async with websockets.serve(serve_client, "127.0.0.1", 0, max_size=2**20) as server:
        started(server.sockets[0].getsockname()[1])
        await asyncio.Future()
