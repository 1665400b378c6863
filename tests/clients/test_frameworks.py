"""The AssemblyAI services of agent frameworks, which connect to Sidetone by their option for the base URL."""

import asyncio
import importlib.util

import pytest
from conftest import FINALS

TEXTS = ["Good morning. How can I help?", "My card is blocked.", "I am sorry to hear that.", "Can you send a new one?"]
SILENCE = b"\0" * 1600


@pytest.mark.skipif(importlib.util.find_spec("livekit") is None, reason="livekit-plugins-assemblyai is not installed")
def test_livekit_gets_its_transcripts(start):
    import aiohttp
    from livekit import rtc
    from livekit.agents import stt as agents_stt
    from livekit.plugins import assemblyai

    daemon = start.daemon(start.vendor(start.call(doubles=False), speed="5"))

    async def session():
        finals = []
        async with aiohttp.ClientSession() as http:
            service = assemblyai.STT(api_key="k", base_url=daemon.ws, sample_rate=16000, http_session=http)
            stream = service.stream()

            async def speak():
                while True:
                    frame = rtc.AudioFrame(data=SILENCE, sample_rate=16000, num_channels=1, samples_per_channel=800)
                    stream.push_frame(frame)
                    await asyncio.sleep(0.05)

            async def listen():
                async for event in stream:
                    if event.type == agents_stt.SpeechEventType.FINAL_TRANSCRIPT:
                        finals.append(event.alternatives[0].text)
                        if len(finals) == FINALS:
                            return

            speaking = asyncio.create_task(speak())
            try:
                await asyncio.wait_for(listen(), 60)
            finally:
                speaking.cancel()
                await stream.aclose()
        return finals

    assert asyncio.run(session()) == TEXTS


@pytest.mark.skipif(importlib.util.find_spec("pipecat") is None, reason="pipecat-ai is not installed")
def test_pipecat_gets_its_transcripts(start):
    from pipecat.frames.frames import EndFrame, InputAudioRawFrame, TranscriptionFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.services.assemblyai.stt import AssemblyAISTTService

    daemon = start.daemon(start.vendor(speed="5"))
    finals = []

    class Listener(FrameProcessor):
        async def process_frame(self, frame, direction):
            await super().process_frame(frame, direction)
            if isinstance(frame, TranscriptionFrame):
                finals.append(frame.text)
            await self.push_frame(frame, direction)

    async def session():
        service = AssemblyAISTTService(
            api_key="k", api_endpoint_base_url=f"{daemon.ws}/v3/ws", vad_force_turn_endpoint=False
        )
        parameters = PipelineParams(audio_in_sample_rate=16000)
        task = PipelineTask(Pipeline([service, Listener()]), params=parameters, idle_timeout_secs=None)

        async def speak():
            await asyncio.sleep(0.5)
            while len(finals) < FINALS:
                frame = InputAudioRawFrame(audio=SILENCE, sample_rate=16000, num_channels=1)
                await task.queue_frame(frame)
                await asyncio.sleep(0.05)
            await task.queue_frame(EndFrame())

        await asyncio.wait_for(asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak()), 60)

    asyncio.run(session())
    assert finals == TEXTS
