//! Json: JSON text of a token or of a key set.
//!
//! `serde_json` keeps the last of repeated members and accepts 128 levels. A token whose readers could
//! see different values is refused (RFC 8725 section 2.4), so this reader tells whether an object
//! repeats a member, and bounds the depth.
//!
//! Not here: what the members mean.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most levels of objects and arrays, the outermost included.
const MAX_DEPTH: usize = 32;

/// A JSON value.
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// A number that is written as an integer, and that fits.
    Integer(i64),
    /// Any other number.
    Float(f64),
    String(Box<str>),
    Array(Vec<Value>),
    Object(Object),
}

impl Value {
    /// The text, if the value is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The texts, if the value is an array of nothing but strings.
    pub(super) fn as_strings(&self) -> Option<Vec<&str>> {
        let Self::Array(values) = self else { return None };
        values.iter().map(Self::as_str).collect()
    }
}

/// A JSON object.
#[derive(Default)]
pub(super) struct Object {
    members: BTreeMap<Box<str>, Value>,
    /// Whether a name is there twice, also if it is written in two ways.
    pub(super) has_repeats: bool,
}

impl Object {
    /// The value of this member.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// Whether the object has one of these members.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.members.contains_key(*name))
    }
}

/// Parses a text that is one JSON object in UTF-8, and nothing after it.
///
/// # Errors
/// The text is not JSON, not an object, or deeper than [`MAX_DEPTH`].
pub(super) fn parse(text: &[u8]) -> Result<Object, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = deserializer.deserialize_map(Levels(MAX_DEPTH))?;
    deserializer.end()?;
    let Value::Object(object) = value else {
        return Err(Error::custom("not an object"));
    };
    Ok(object)
}

/// How many levels a value may have.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    // No rule compares so large a number exactly.
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(below)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut object = Object::default();
        while let Some(name) = entries.next_key::<Box<str>>()? {
            let value = entries.next_value_seed(below)?;
            object.has_repeats |= object.members.insert(name, value).is_some();
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_members_are_seen_however_they_are_written() {
        for (text, repeats) in [
            (r#"{"a":1,"b":1}"#, false),
            (r#"{"a":1,"A":1}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"{"a":1,"\u0061":2}"#, true),
            (r#"{"a":{"b":1,"b":2}}"#, false),
            ("{}", false),
        ] {
            assert_eq!(parse(text.as_bytes()).expect(text).has_repeats, repeats, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = |levels: usize| {
                let (open, close) = (open.repeat(levels - 1), close.repeat(levels - 1));
                parse(format!(r#"{{"a":{open}0{close}}}"#).as_bytes()).is_ok()
            };
            assert!(deep(32));
            assert!(!deep(33));
            assert!(!deep(100_000));
        }
    }

    #[test]
    fn text_is_one_object_in_utf_8() {
        for bad in [
            &b""[..],
            b"1",
            b"[]",
            b"null",
            b"{} {}",
            b"{}x",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"{\"a\":1e999}",
            b"{\"a\":NaN}",
            b"{\"a\":01}",
            b"{\"\xff\":1}",
            b"{\"a\":\"\xc3\x28\"}",
            b"{\"a\":\"\\ud800\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\n\"}",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let object =
            parse(br#" {"i":-3,"u":18446744073709551615,"f":1.0,"e":1e2} "#).expect("good");
        assert!(matches!(object.get("i"), Some(Value::Integer(-3))));
        for name in ["u", "f", "e"] {
            assert!(matches!(object.get(name), Some(Value::Float(_))), "{name}");
        }
    }
}
