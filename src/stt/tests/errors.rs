//! Errors that a vendor reports besides speech.

use super::*;

#[test]
fn errors_of_add_ons_are_no_errors_of_the_vendor() {
    for (dialect, frame) in [
        (
            "assemblyai",
            r#"{"type":"LLMGatewayResponse","turn_order":0,"error":{"code":429,"message":"x"},"data":null}"#,
        ),
        ("assemblyai", r#"{"type":"LlmGatewayResponse","turn_order":0,"data":{"error":{"message":"x"}}}"#),
        ("assemblyai", r#"{"type":"Warning","warning_code":1,"warning":"x","error":"x"}"#),
        ("assemblyai", r#"{"type":"SpeakerSummary","data":{"error":"x","error_code":500}}"#),
        ("deepgram", r#"{"type":"Warning","description":"x","error":{"type":"Error","description":"x"}}"#),
        ("deepgram", r#"{"type":"Sentiment","error":{"type":"Error","code":"x"}}"#),
        ("deepgram", r#"{"type":"ConfigureFailure","error":"x"}"#),
        ("deepgram_flux", r#"{"type":"Warning","code":"x","description":"x"}"#),
        ("deepgram_flux", r#"{"type":"ConfigureFailure","error":{"type":"Error","code":"x"}}"#),
        (
            "openai_realtime",
            r#"{"type":"response.done","response":{"status":"failed","status_details":{"error":{"code":"x"}}}}"#,
        ),
        ("openai_realtime", r#"{"type":"mcp_list_tools.failed","item_id":"i","error":{"code":"x"}}"#),
        ("speechmatics", r#"{"message":"Warning","type":"x","reason":"x"}"#),
        ("speechmatics", r#"{"message":"AddTranslation","language":"de","error":{"message":"Error","type":"x"}}"#),
        ("speechmatics_agent", r#"{"message":"Warning","type":"x","reason":"x"}"#),
        ("speechmatics_agent", r#"{"message":"SmartTurnResult","error":{"message":"Error","type":"x"}}"#),
        ("gladia", r#"{"type":"translation","error":{"status_code":500,"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"sentiment_analysis","error":{"code":1,"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"named_entity_recognition","error":{"message":"x"},"data":{"results":null}}"#),
        ("gladia", r#"{"type":"post_summarization","error":{"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"post_chapterization","error":{"message":"x"},"data":null}"#),
        ("gladia", r#"{"type":"summarization","error":{"message":"x"},"data":null}"#),
        ("elevenlabs", r#"{"message_type":"warning","error":"x"}"#),
        ("elevenlabs", r#"{"message_type":"committed_transcript_entities","entities":null,"error":"x"}"#),
        ("elevenlabs", r#"{"message_type":"entities_updated","entities":[],"error":"x"}"#),
        ("soniox", r#"{"tokens":[],"final_audio_proc_ms":1,"translation":{"error_code":500,"error_message":"x"}}"#),
        ("google", r#"{"results":[],"adaptation":{"error":{"code":3,"message":"x"}}}"#),
        ("google", r#"{"summary":{"error":{"code":3,"message":"x"}}}"#),
        ("aws", r#"{"Transcript":{"Results":[]},"Sentiment":{"InternalFailureException":{"Message":"x"}}}"#),
        ("aws", r#"{"Insight":{"Message":"x"}}"#),
        (
            "aws_contact_lens",
            r#"{"EventType":"SEGMENTS","Segments":[{"PostContactSummary":{"Status":"FAILED","FailureCode":"x"}}]}"#,
        ),
        ("aws_contact_lens", r#"{"CategoryEvent":{"MatchedCategories":[],"Error":{"Message":"x"}}}"#),
        (
            "azure",
            r#"{"RecognitionStatus":"Success","DisplayText":"","Translation":{"TranslationStatus":"Error","FailureReason":"x"}}"#,
        ),
        ("gemini_live", r#"{"serverContent":{"groundingMetadata":{"error":{"code":500,"message":"x"}}}}"#),
        ("gemini_live", r#"{"toolCall":{"error":{"code":500,"message":"x"}}}"#),
        ("twilio", r#"{"type":"info","error":{"type":"error","description":"x"}}"#),
        ("recall", r#"{"event":"bot.fatal","data":{"data":{"code":"fatal","sub_code":"x"},"error":"x"}}"#),
        ("recall", r#"{"event":"recording.failed","data":{"data":{"code":"failed","sub_code":"x"}}}"#),
        ("recall", r#"{"event":"participant_events.join","data":{"error":"x"}}"#),
        ("zoom", r#"{"msg_type":6,"event":{"event_type":3,"error":{"status_code":5,"reason":"x"}}}"#),
    ] {
        let dialect = super::dialect(dialect).expect("dialect");
        let (mut decoder, mut out) = (dialect.open(), Vec::new());
        decoder.decode(frame, &mut out).expect("decodes");
        let error = out.iter().any(|event| matches!(event, SttEvent::VendorError { .. }));
        assert!(!error, "{}: {frame}: {out:?}", dialect.name());
    }
}

#[test]
fn speech_beside_an_error_is_kept() {
    for (dialect, frame) in [
        (
            "google",
            r#"{"results":[{"alternatives":[{"transcript":"Still here."}],"isFinal":true}],"error":{"code":11,"message":"x"}}"#,
        ),
        (
            "soniox",
            r#"{"tokens":[{"text":"Still here.","start_ms":1,"end_ms":9,"is_final":true},{"text":"<end>","is_final":true}],"error_code":408,"error_message":"x"}"#,
        ),
    ] {
        let mut out = Vec::new();
        super::dialect(dialect).expect("dialect").open().decode(frame, &mut out).expect("decodes");
        assert!(
            matches!(&out[..], [SttEvent::Final(turn), SttEvent::VendorError { .. }] if turn.text == "Still here."),
            "{out:?}"
        );
    }
}
