//! Answers, errors, lists and streams of every LLM vendor.
#![no_main]

#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::llm(data));
