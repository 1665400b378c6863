use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;
use crate::llm::Finish;

/// The thinking and the answer of a text that arrives in these parts.
fn split(parts: &[&str], json: bool) -> (String, String) {
    let mut thinking = Thinking::new(ThinkTags::Auto, json);
    let mut answer = ChatResponse::default();
    for part in parts {
        let mut pieces = vec![Piece::Text { choice: 0, text: (*part).to_owned() }];
        thinking.pieces(&mut pieces);
        pieces.iter().for_each(|piece| answer.absorb(piece));
    }
    let mut pieces = vec![Piece::Finish { choice: 0, reason: Finish::Stop }];
    thinking.pieces(&mut pieces);
    pieces.iter().for_each(|piece| answer.absorb(piece));
    let choice = answer.choices.pop().expect("a choice");
    (choice.reasoning.unwrap_or_default(), choice.text.unwrap_or_default())
}

const OPEN_CLOSE: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
];

#[test]
fn blocks_of_thinking_beyond_what_models_write_are_the_answer() {
    let (thought, answer) = split(&["<think>a</think>".repeat(10_000).as_str()], false);
    assert_eq!((thought.matches('a').count(), answer.matches("<think>a</think>").count()), (64, 9_936));
    let (_, answer) = split(&["<|start|>assistant".repeat(10_000).as_str()], false);
    assert_eq!(answer.len(), (10_000 - 64) * "<|start|>assistant".len());
}

#[test]
fn thinking_before_the_answer_is_separated_for_every_tag() {
    for (open, close) in OPEN_CLOSE {
        for (text, thought, answer) in [
            (format!("{open}a < b{close}It is."), "a < b", "It is."),
            (format!(" \n{open}\nhm\n\nso\n{close}\n\nIt is.\n"), "hm\n\nso", "It is.\n"),
            (format!("{open}\n\n{close}\n\nIt is."), "", "It is."),
            (format!("{open}one{close}\n{open}two{close}It is."), "one\n\ntwo", "It is."),
            (format!("{open}it goes on and"), "it goes on and", ""),
            (format!("{open}{close}"), "", ""),
        ] {
            for json in [false, true] {
                assert_eq!(split(&[&text], json), (thought.to_owned(), answer.to_owned()), "{text}");
            }
        }
    }
    assert_eq!(split(&["<THINK>a</Think>b"], false), ("a".into(), "b".into()), "in capitals");
    for (harmony, answer) in [
        ("<|channel|>final<|message|>It is.<|return|>", "It is."),
        ("<|channel|>final<|message|>It is.\n<|end|> <|return|>\n", "It is.\n"),
        ("<|channel|>final<|message|>It <|end|> is.", "It <|end|> is."),
    ] {
        assert_eq!(split(&[harmony], false), (String::new(), answer.into()), "an answer with a head, without thinking");
    }
}

#[test]
fn tags_that_are_only_mentioned_stay() {
    for text in [
        "The tag <think> opens, </think> closes.",
        "Write `<think>\nso\n</think>`.",
        "Example:\n<think>\nso\n</think>\nand on.",
        "<thin ice>",
        "<b>think</b>",
        "[TODO] think",
        "<|im_start|>",
        "  \n ",
        "<",
        "",
    ] {
        for json in [false, true] {
            assert_eq!(split(&[text], json), (String::new(), text.to_owned()), "{text}");
        }
    }
}

#[test]
fn closing_tag_without_an_opening_one_counts_if_text_can_be_delayed() {
    for (text, thought, answer) in [
        ("Okay, the customer\nis calm.\n</think>\n\n{\"level\":1}", "Okay, the customer\nis calm.", "{\"level\":1}"),
        ("Maybe {\"level\":0}?</think>{\"level\":1}", "Maybe {\"level\":0}?", "{\"level\":1}"),
        ("hm [/THINK]\nIt is.", "hm", "It is."),
        ("all of it is thinking</think>", "all of it is thinking", ""),
        ("It closes with </think> there.", "", "It closes with </think> there."),
    ] {
        assert_eq!(split(&[text], true), (thought.to_owned(), answer.to_owned()), "{text}");
        let mut whole = ChatResponse::default();
        whole.absorb(&Piece::Text { choice: 0, text: text.to_owned() });
        Thinking::whole(ThinkTags::Auto, &mut whole);
        let choice = &whole.choices[0];
        assert_eq!(choice.reasoning.as_deref().unwrap_or_default(), thought, "{text}");
        assert_eq!(choice.text.as_deref(), Some(answer), "{text}");
    }
}

#[test]
fn missing_opening_tag_is_remembered_for_the_next_answer() {
    for (parts, patient, unmarked) in [
        (&["hm", "</think>", "It is."][..], false, Some(true)),
        (&["It is", " so.\n</think>\n"], false, Some(true)),
        (&["hm", "</thi", "nk>\nIt is."], true, Some(true)),
        (&["It is."], true, Some(false)),
        (&["It is."], false, None),
        (&["The tag </think> closes."], false, None),
        (&["<think>hm</think>It is."], false, None),
    ] {
        let mut thinking = Thinking::new(ThinkTags::Auto, patient);
        let last = Piece::Finish { choice: 0, reason: Finish::Stop };
        let texts = parts.iter().map(|part| Piece::Text { choice: 0, text: (*part).to_owned() });
        texts.chain([last]).for_each(|piece| {
            thinking.pieces(&mut vec![piece]);
        });
        assert_eq!(thinking.unmarked(), unmarked, "{parts:?}");
    }
}

#[test]
fn settings_say_what_becomes_of_thinking() {
    let said = "<think>hm</think>It is.";
    let reasoned = [
        Piece::Reasoning { choice: 0, text: "given".into() },
        Piece::Text { choice: 0, text: said.into() },
        Piece::Finish { choice: 0, reason: Finish::Stop },
    ];
    for (tags, given, reasoning, text) in [
        (ThinkTags::Auto, false, Some("hm"), "It is."),
        (ThinkTags::Auto, true, Some("given"), said),
        (ThinkTags::Keep, false, None, said),
        (ThinkTags::Keep, true, Some("given"), said),
        (ThinkTags::Strip, false, None, "It is."),
        (ThinkTags::Strip, true, Some("given"), "It is."),
    ] {
        let pieces = &reasoned[usize::from(!given)..];
        let mut thinking = Thinking::new(tags, false);
        let (mut streamed, mut whole) = (ChatResponse::default(), ChatResponse::default());
        for piece in pieces {
            whole.absorb(piece);
            let mut out = vec![piece.clone()];
            thinking.pieces(&mut out);
            out.iter().for_each(|piece| streamed.absorb(piece));
        }
        Thinking::whole(tags, &mut whole);
        for (how, answer) in [("streamed", &streamed), ("whole", &whole)] {
            let choice = &answer.choices[0];
            assert_eq!(choice.reasoning.as_deref(), reasoning, "{tags:?} {given} {how}");
            assert_eq!(choice.text.as_deref(), Some(text), "{tags:?} {given} {how}");
        }
    }
    assert_eq!(ThinkTags::NAMES.map(ThinkTags::parse), [ThinkTags::Auto, ThinkTags::Keep, ThinkTags::Strip].map(Some));
}

#[test]
fn an_answer_without_tags_goes_on_as_it_came() {
    let mut thinking = Thinking::new(ThinkTags::Auto, false);
    for piece in [
        Piece::Text { choice: 0, text: "\nIt".into() },
        Piece::Text { choice: 0, text: " is <think>".into() },
        Piece::Text { choice: 1, text: "So".into() },
        Piece::Finish { choice: 0, reason: Finish::Stop },
        Piece::Done,
    ] {
        let mut pieces = vec![piece.clone()];
        assert!(!thinking.pieces(&mut pieces), "{piece:?}");
        assert_eq!(pieces, [piece]);
    }
    let mut pieces = vec![Piece::Text { choice: 2, text: "<thi".into() }];
    assert!(thinking.pieces(&mut pieces), "held back");
    assert_eq!(pieces, []);
    thinking.end(&mut pieces);
    assert_eq!(pieces, [Piece::Text { choice: 2, text: "<thi".into() }], "nothing is lost at the end");
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_cut_gives_the_same(
        tokens in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    "<think>", "</think>", "<thinking>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷",
                    "<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|end|>", "<|start|>assistant",
                    "<|return|>", "\n", " ", "{", "<", "</", "◁", "[", "a", "é", "\n\n",
                ]).prop_map(str::to_owned),
                "\\PC{0,3}",
            ],
            0..12,
        ),
        cuts in proptest::collection::vec(0_usize..200, 0..8),
        json in any::<bool>(),
    ) {
        let text = tokens.concat();
        let whole = split(&[&text], json);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let parts: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
        prop_assert_eq!(&split(&parts, json), &whole);
        let each: Vec<String> = text.chars().map(String::from).collect();
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        prop_assert_eq!(&split(&each, json), &whole);
    }
}
