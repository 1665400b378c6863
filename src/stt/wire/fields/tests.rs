//! Fields that vendors write in more than one way.

use super::*;

fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[test]
fn seconds_in_any_spelling_are_the_same_time() {
    for json in [
        "1.2",
        r#""1.2""#,
        r#""1.200s""#,
        r#"" 1.2s ""#,
        r#""PT1.2S""#,
        r#""PT0M1.2S""#,
        r#""00:00:01.2000000""#,
        r#"{"seconds":1,"nanos":200000000}"#,
        r#"{"seconds":"1","nanos":200000000}"#,
        r#"{"seconds_":1,"nanos_":200000000}"#,
        r#"{"nanos":1200000000}"#,
        r#"{"seconds":{"low":1,"high":0,"unsigned":false},"nanos":"200000000"}"#,
    ] {
        assert_eq!(read(json), Ok(Seconds(1200)), "{json}");
    }
    assert_eq!(read(r#"{"seconds":"2","nanos":null}"#), Ok(Seconds(2000)));
    for (json, ms) in [("{}", Some(0)), (r#"{"nanos":5e8}"#, Some(500)), (r#""2s""#, Some(2000)), (r#"{"x":1}"#, None)]
    {
        assert_eq!(read::<Offset>(json).ok(), ms.map(Offset), "{json}");
    }
    assert_eq!(read("-0.4"), Ok(Seconds(0)));
    assert_eq!(read(r#"{"seconds":{"low":-1,"high":0}}"#), Ok(Seconds(4_294_967_295_000)));
    for json in ["true", r#""soon""#, r#""s""#, r#""PT""#, r#""1:x""#, r#""NaN""#, "{}", r#"{"x":1}"#, "[1]", "1e300"] {
        let error = read::<Seconds>(json).expect_err(json);
        assert!(error.contains("expected a number of seconds"), "{json}: {error}");
    }
}

#[test]
fn numbers_may_be_text_and_have_a_fraction() {
    for (json, expected) in [("160.5", 161), (r#""160.4""#, 160), ("-3", 0), ("1e3", 1000), (r#"" 7 ""#, 7)] {
        assert_eq!(read(json), Ok(Natural(expected)), "{json}");
    }
    for json in ["1e300", r#""inf""#, r#""""#, "true", "{}", "[]"] {
        assert!(read::<Natural>(json).is_err(), "{json}");
    }
    assert_eq!(read(r#""0.25""#), Ok(Score(0.25)));
    assert_eq!(read("7"), Ok(Score(1.0)));
    assert!(read::<Score>(r#""high""#).is_err());
    for (json, expected) in [("1", true), ("0.0", false), (r#""True""#, true), (r#""no""#, false)] {
        assert_eq!(read(json), Ok(Flag(expected)), "{json}");
    }
    assert!(read::<Flag>("2").is_err() && read::<Flag>(r#""maybe""#).is_err());
}

#[test]
fn labels_and_texts_may_be_numbers() {
    for (json, expected) in
        [("7", "7"), ("7.0", "7"), ("1.5", "1.5"), ("-1", "-1"), (r#""A b""#, "A b"), ("true", "true")]
    {
        assert_eq!(read(json), Ok(Label(expected.to_owned())), "{json}");
        let text: Text<'_> = serde_json::from_str(json).expect("text");
        assert_eq!(text.as_str(), expected, "{json}");
    }
    assert!(read::<Label>("{}").is_err() && read::<Label>("[]").is_err());
}

#[test]
fn lists_leave_out_null() {
    #[derive(serde::Deserialize)]
    struct Lists {
        #[serde(default, deserialize_with = "list")]
        some: Vec<Natural>,
        #[serde(default, deserialize_with = "optional_list")]
        maybe: Option<Vec<Natural>>,
    }
    let lists: Lists = serde_json::from_str(r#"{"some":[1,null,2],"maybe":null}"#).expect("lists");
    assert_eq!((lists.some, lists.maybe), (vec![Natural(1), Natural(2)], None));
    let lists: Lists = serde_json::from_str(r#"{"maybe":[]}"#).expect("lists");
    assert_eq!((lists.some, lists.maybe), (vec![], Some(vec![])));
}
