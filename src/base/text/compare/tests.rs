use icu_normalizer::DecomposingNormalizer;
use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

fn holds(text: &str, quote: &str) -> bool {
    Words::of(text).hold(&Quote::of(quote))
}

#[test]
fn quotes_are_found_despite_case_punctuation_and_unicode_forms() {
    for (text, quote) in [
        ("Well, I'd like to REPLACE my card - today.", "replace my card"),
        ("Well, I'd like to REPLACE my card - today.", "I'd like … my card"),
        ("Well, I'd like to REPLACE my card - today.", "card today"),
        ("Well, I'd like to REPLACE my card - today.", "well I’d like"),
        ("He said “no – never”, twice.", "\"no -- never\" twice"),
        ("It is well-known.", "well known"),
        ("It is well known.", "well‐known"),
        ("the co\u{ad}oper\u{200b}ation", "cooperation"),
        ("cooperation", "co\u{ad}operation"),
        ("Die Straße ist groß", "STRASSE IST GROSS"),
        ("Ο Οδυσσέας ήταν εκεί", "ΟΔΥΣΣΈΑΣ ΉΤΑΝ"),
        ("İptal etmek istiyorum", "iptal etmek"),
        ("the office ﬁle is １２３", "office file is 123"),
        ("Ich möchte kündigen", "Ich mo\u{308}chte ku\u{308}ndigen"),
        ("Tôi muốn hủy đơn hàng", "hủy đơn"),
        ("はい、来月いっぱいで解約したいんですけど、手数料はかかりますか。", "解約したいんですけど"),
        ("はい、来月いっぱいで解約したいんですけど、手数料はかかりますか。", "来月 … 手数料"),
        ("はい、来月いっぱいで解約したい", "来月いっぱいで。。。したい"),
        ("ｽｰﾊﾟｰで買った", "スーパーで"),
        ("我想取消订单，因为快递一直没有到。", "快递一直没有到"),
        ("我想取消订单，因为快递一直没有到。", "订单因为"),
        ("ต้องการยกเลิกบริการเพราะอินเทอร์เน็ตช้ามาก", "อินเทอร์เน็ตช้ามาก"),
        ("ຂ້ອຍຢາກຍົກເລີກ", "ຢາກຍົກເລີກ"),
        ("ខ្ញុំចង់លុបចោល", "ចង់លុបចោល"),
        ("ပယ်ဖျက်ချင်ပါတယ်", "ဖျက်ချင်ပါတယ်"),
        ("用iPhone打电话", "iPhone打"),
        ("배송이 너무 늦어서 주문을 취소하고 싶어요.", "주문을 취소하고"),
        ("أريد إلغاء الطلب لأن التوصيل متأخر جدا.", "إلغاء الطلب"),
        ("می\u{200c}خواهم لغو کنم", "میخواهم لغو"),
        ("क्या हुआ?", "क्या"),
        ("It is 3.5 percent of 1,000", "3.5 percent of 1,000"),
        ("It is 1’000 francs", "1'000 francs"),
        ("a 5′10 frame", "5'10 frame"),
        ("1⁄2 cup, ½ spoon", "1/2 cup … 1/2 spoon"),
        ("call 555–1234", "555-1234"),
    ] {
        assert!(holds(text, quote), "{quote:?} in {text:?}: {:?} {:?}", Words::of(text), Quote::of(quote));
    }
}

#[test]
fn other_words_are_not_found() {
    for (text, quote) in [
        ("Well, I'd like to replace my card", "replace card"),
        ("Well, I'd like to replace my card", "my card … like"),
        ("Well, I'd like to replace my card", "place my"),
        ("Well, I'd like to replace my card", "replaces"),
        ("It is 3.5 percent", "35 percent"),
        ("It is 1,000", "1000"),
        ("It is 1’000", "1000"),
        ("the café is shut", "the cafe is"),
        ("はい、解約したいんですけど", "返金してください"),
        ("我想取消订单", "取订单"),
        ("ต้องการยกเลิก", "ขอเงินคืน"),
        ("ช้ามาก", "ชามาก"),
        ("배송이 너무 늦어서", "송이"),
        ("用iPhone打电话", "Phone打"),
        ("कया", "क्या"),
        ("something was said", " … ?"),
        ("something was said", ""),
    ] {
        assert!(!holds(text, quote), "{quote:?} in {text:?}: {:?} {:?}", Words::of(text), Quote::of(quote));
    }
}

#[test]
fn weight_counts_two_characters_of_a_script_without_spaces_as_a_word() {
    for (quote, weight) in [("replace my card", 3), ("my … card", 2), ("解約したい", 2), ("iPhoneを買う", 2), ("…", 0)]
    {
        assert_eq!(Quote::of(quote).weight(), weight, "{quote}");
    }
}

#[test]
fn prefixes_are_found_over_normal_forms_and_case() {
    assert_eq!(prefix_of("Hello there", "hello"), Some(5));
    assert_eq!(prefix_of("mo\u{308}chte ich", "möchte"), Some(8));
    assert_eq!(prefix_of("möchte ich", "mo\u{308}chte"), Some(7));
    assert_eq!(prefix_of("がする", "か\u{3099}"), Some(3));
    assert_eq!(prefix_of("help", "hello"), None);
    assert_eq!(prefix_of("he", "hello"), None);
}

/// Phrases in many scripts, as words that are joined by the phrase's own separator.
const PHRASES: &[(&str, &[&str])] = &[
    (" ", &["I", "can't", "reach", "the", "café", "since", "3.5", "weeks"]),
    (" ", &["Tôi", "muốn", "hủy", "đơn", "hàng"]),
    (" ", &["Die", "Straße", "kündigen", "möchte", "ich"]),
    (" ", &["배송이", "너무", "늦어서", "취소하고"]),
    (" ", &["Ο", "Οδυσσέας", "ήταν", "εκεί"]),
    ("", &["解", "約", "し", "た", "が", "ス", "ー", "パ", "ー"]),
    ("", &["ย", "ก", "เ", "ลิ", "ก", "ช้", "า"]),
];

fn dressed(text: &str, form: u8, case: u8, marks: u8) -> String {
    let text = match form {
        0 => text.to_owned(),
        1 => DecomposingNormalizer::new_nfd().normalize(text).into_owned(),
        2 => ComposingNormalizer::new_nfc().normalize(text).into_owned(),
        3 => DecomposingNormalizer::new_nfkd().normalize(text).into_owned(),
        _ => NFKC.normalize(text).into_owned(),
    };
    let text = match case {
        0 => text,
        1 => text.to_lowercase(),
        _ => text.to_uppercase(),
    };
    match marks {
        0 => text,
        1 => text.replace(' ', " \u{a0}\t"),
        2 => text.replace('\'', "’").replace(' ', " – "),
        3 => text.chars().flat_map(|character| ['\u{200b}', character]).collect(),
        4 => format!("“{text}”"),
        5 => format!("…{text}..."),
        _ => text.replace(' ', ", "),
    }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_variant_of_a_slice_is_found(
        phrase in 0..PHRASES.len(), from in 0..9_usize, length in 1..9_usize,
        of_text in (0..5_u8, 0..3_u8, 0..7_u8), of_quote in (0..5_u8, 0..3_u8, 0..7_u8),
    ) {
        let (separator, words) = PHRASES[phrase];
        let from = from % words.len();
        let to = (from + length).min(words.len());
        let text = dressed(&words.join(separator), of_text.0, of_text.1, of_text.2);
        let quote = dressed(&words[from..to].join(separator), of_quote.0, of_quote.1, of_quote.2);
        prop_assert!(holds(&text, &quote), "{:?} in {:?}", quote, text);
        let longer = format!("{quote} {quote} qqq");
        prop_assert!(!holds(&text, &longer), "{:?} in {:?}", longer, text);
    }

    #[test]
    fn a_quote_cut_within_a_word_is_not_found(first in "[a-zäöü]{2,8}", second in "[a-zäöü]{3,8}", third in "[a-zäöü]{2,8}", at in 1..7_usize) {
        let text = format!("{first} {second} {third}");
        let at = second.char_indices().nth(at % (second.chars().count() - 1) + 1).map_or(1, |(at, _)| at);
        // The rest of a word may by chance equal the word next to it.
        prop_assume!(second[..at] != *first && second[at..] != *third);
        let cut = [format!("{first} {}", &second[..at]), format!("{} {third}", &second[at..])];
        for quote in cut {
            prop_assert!(!holds(&text, &quote), "{:?} in {:?}", quote, text);
        }
    }

    #[test]
    fn any_text_contains_itself_as_a_quote(text in "\\PC{0,60}") {
        let words = Words::of(&text);
        prop_assert!(words.is_empty() == Quote::of(&text).is_empty());
        prop_assert!(words.is_empty() || words.hold(&Quote::of(&text)), "{:?} {:?}", words, Quote::of(&text));
    }
}
