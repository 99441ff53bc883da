//! Json: the JSON text of a request. A text with a member that is there twice, at any depth, is refused:
//! its readers could see different values. Nothing is copied but what is asked for.
//!
//! Not here: what the members mean; see [`super::entity`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most levels of objects and arrays, the outermost included.
const MAX_DEPTH: usize = 32;
/// The names of an object with fewer members are compared one by one.
const COMPARED: usize = 8;

/// The text of a JSON value, without spaces around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(&'a str);

/// Reads a text that is one JSON object in UTF-8, and nothing after it.
///
/// # Errors
/// The text is not JSON, not an object, or deeper than [`MAX_DEPTH`], or it names a member twice.
pub(super) fn parse(text: &[u8]) -> Result<Value<'_>, serde_json::Error> {
    let text = str::from_utf8(text).map_err(|_| Error::custom("not UTF-8"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Levels(MAX_DEPTH))?;
    deserializer.end()?;
    Ok(Value(text.trim_ascii()))
}

impl<'a> Value<'a> {
    /// The text of the value.
    pub(super) fn text(self) -> &'a str {
        self.0
    }

    /// The string, if the value is one.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        deserializer.deserialize_str(Text).ok()
    }

    /// Whether the value is an object.
    pub(super) fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether the value is `null`.
    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The members of these names, if the value is an object.
    pub(super) fn members<const N: usize>(
        self,
        names: &[&str; N],
    ) -> Option<[Option<Value<'a>>; N]> {
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        deserializer.deserialize_map(Members(names)).ok()
    }

    /// The items, if the value is an array: as many as the limit, and the number of all.
    pub(super) fn items(self, limit: usize) -> Option<(Vec<Value<'a>>, usize)> {
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        deserializer.deserialize_seq(Items(limit)).ok()
    }
}

/// Reads a string, without a copy if nothing in it is escaped.
struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

struct Members<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<Value<'de>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = members.next_key_seed(Text)? {
            let place = self.0.iter().position(|known| *known == name);
            match place.and_then(|place| found.get_mut(place)) {
                Some(place) => *place = Some(Value(members.next_value::<&RawValue>()?.get())),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct Items(usize);

impl<'de> Visitor<'de> for Items {
    type Value = (Vec<Value<'de>>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut count) = (Vec::new(), 0);
        while let Some(item) = items.next_element::<&RawValue>()? {
            count += 1;
            if count <= self.0 {
                values.push(Value(item.get()));
            }
        }
        Ok((values, count))
    }
}

/// Checks a value of so many levels at most, and keeps nothing of it.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut few: Vec<Cow<'de, str>> = Vec::new();
        let mut many: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(name) = members.next_key_seed(Text)? {
            let is_new = match few.len() {
                0..COMPARED if many.is_empty() => {
                    let is_new = !few.contains(&name);
                    few.push(name);
                    is_new
                }
                _ => {
                    many.extend(few.drain(..));
                    many.insert(name)
                }
            };
            if !is_new {
                return Err(A::Error::custom("a member is there twice"));
            }
            members.next_value_seed(below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_any_depth() {
        for (text, is_good) in [
            (r#"{"a":1,"b":1}"#, true),
            (r#"{"a":1,"A":1}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#"{"a":{"b":1,"b":2}}"#, false),
            (r#"{"a":[{"b":1},{"b":1,"c":0,"b":2}]}"#, false),
            (r#"{"a":{"b":1},"c":{"b":1}}"#, true),
        ] {
            assert_eq!(parse(text.as_bytes()).is_ok(), is_good, "{text}");
        }
        for count in [2, COMPARED - 1, COMPARED, COMPARED + 1, 100] {
            let names: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
            assert!(parse(format!("{{{}}}", names.join(",")).as_bytes()).is_ok(), "{count}");
            for again in 0..count {
                let text = format!("{{{},\"m{again}\":0}}", names.join(","));
                assert!(parse(text.as_bytes()).is_err(), "{again} of {count}");
            }
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
            b"\"{}\"",
            b"{} {}",
            b"{}x",
            b"{\"a\":1,}",
            b"{'a':1}",
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
    }

    #[test]
    fn members_and_items_are_found_by_name_and_place() {
        let text = br#" { "a" : "x\u0079" , "b": [ 1 , {"c":2}, 3 ], "\u0063": null } "#;
        let value = parse(text).expect("good");
        let [a, b, c, d] = value.members(&["a", "b", "c", "d"]).expect("an object");
        assert_eq!(a.and_then(Value::string).as_deref(), Some("xy"));
        assert!(c.is_some_and(Value::is_null) && d.is_none());
        let (items, count) = b.and_then(|b| b.items(2)).expect("an array");
        assert_eq!((items.len(), count), (2, 3));
        assert_eq!(items[0].text(), "1");
        assert!(items[1].is_object() && items[1].string().is_none() && items[1].items(1).is_none());
        assert!(items[0].members(&["c"]).is_none());
    }
}
