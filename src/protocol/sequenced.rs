//! A sequenced event with its stamp, read in one pass over the frame.
//!
//! Knows no journal and no socket. In a frame, the event's own members are beside those of the stamp. The event is read
//! from the object without the stamp's members, which are removed while the frame is read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize as _, forward_to_deserialize_any};

use super::event::{Event, Kind, Stamp};
use crate::types::{CallId, Seq};

/// A sequenced event with its stamp, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sequenced {
    #[cfg_attr(test, schemars(flatten))]
    pub stamp: Stamp,
    #[cfg_attr(test, schemars(flatten))]
    pub event: Event,
}

impl Sequenced {
    /// Reads an event that [`encode`](super::event::encode) wrote. Members that readers add, such as `subscription`, are ignored.
    ///
    /// # Errors
    /// The text is not such an event, or it is an event of a later version.
    pub fn read(frame: impl AsRef<[u8]>) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(frame.as_ref());
        let mut found = Found::default();
        let event = Event::deserialize(Frame { json: &mut json, found: &mut found })?;
        json.end()?;
        Ok(Self { stamp: found.stamp()?, event })
    }

    /// Reads a frame of this `type`; `None` if the type is not that of an event of this version.
    ///
    /// # Errors
    /// The type is an event's, and the frame is not a valid event.
    pub(super) fn read_kind(kind: &str, frame: &str) -> Result<Option<Self>, serde_json::Error> {
        match Kind::from_type(kind) {
            Kind::Other => Ok(None),
            _ => Self::read(frame).map(Some),
        }
    }
}

/// The stamp's members that were read so far.
#[derive(Default)]
struct Found {
    call_id: Option<CallId>,
    seq: Option<Seq>,
    at: Option<String>,
}

impl Found {
    fn stamp<E: Error>(self) -> Result<Stamp, E> {
        Ok(Stamp {
            call_id: self.call_id.ok_or_else(|| E::missing_field("call_id"))?,
            seq: self.seq.ok_or_else(|| E::missing_field("seq"))?,
            at: self.at.ok_or_else(|| E::missing_field("at"))?,
        })
    }
}

/// The frame, as the event's own `Deserialize` sees it.
struct Frame<'a, D> {
    json: D,
    found: &'a mut Found,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Frame<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.json.deserialize_map(Members { inner: visitor, found: self.found })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The members of the frame except those of the stamp.
struct Members<'a, T> {
    inner: T,
    found: &'a mut Found,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Members<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Members { inner: map, found: self.found })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.inner.next_key::<String>()? {
            match key.as_str() {
                "call_id" => self.found.call_id = Some(self.inner.next_value()?),
                "seq" => self.found.seq = Some(self.inner.next_value()?),
                "at" => self.found.at = Some(self.inner.next_value()?),
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: &str = r#"{"type":"gap","call_id":"c_1","seq":7,"at":"2026-01-01T00:00:00.000Z","stream_id":"s_1","cause":"x","from_ms":1,"to_ms":2,"subscription":"sub_1"}"#;

    #[test]
    fn members_are_read_in_any_order_and_readers_own_are_ignored() {
        let Sequenced { stamp, event } = Sequenced::read(GAP).expect("an event");
        assert_eq!((stamp.call_id.as_str(), stamp.seq, stamp.at.as_str()), ("c_1", 7, "2026-01-01T00:00:00.000Z"));
        assert_eq!(serde_json::from_str::<Event>(GAP).expect("an event"), event);
        let turned = r#"{"to_ms":2,"at":"2026-01-01T00:00:00.000Z","cause":"x","stream_id":"s_1","seq":7,"from_ms":1,"call_id":"c_1","type":"gap"}"#;
        assert_eq!(Sequenced::read(turned).expect("an event"), Sequenced { stamp, event });
    }

    #[test]
    fn frame_that_lacks_a_member_or_goes_on_is_refused() {
        for member in [
            r#""type":"gap","#,
            r#""call_id":"c_1","#,
            r#""seq":7,"#,
            r#""at":"2026-01-01T00:00:00.000Z","#,
            r#""to_ms":2,"#,
        ] {
            let short = GAP.replace(member, "");
            assert_ne!(short, GAP);
            let name = member.split('"').nth(1).unwrap_or_default();
            let error = Sequenced::read(&short).expect_err(member).to_string();
            assert!(error.contains(name), "{error}");
        }
        for wrong in [format!("{GAP} 1"), format!("[{GAP}]"), GAP.replace(r#""seq":7"#, r#""seq":"7""#), String::new()]
        {
            assert!(Sequenced::read(&wrong).is_err(), "{wrong}");
        }
    }
}
