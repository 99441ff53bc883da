//! Property: a value of a resource or an action that a rule of the catalog compares, exact in type and
//! value.
//!
//! INVARIANT (numbers are not rounded): a number is compared by its exact decimal value, never as a
//! floating-point number: 1 is 1.0 and 10e-1, and 9007199254740993 is not 9007199254740992.
//!
//! A value that no rule can have, such as `null`, an array, an object or a number with an exponent of
//! more than 18 digits, is kept as one that equals nothing. No such value is cut or rounded to one that a
//! rule can have. A text that is not JSON is an error.
//!
//! Not here: the rules; see [`super::catalog::resource`].

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PropertyValue {
    /// A string, compared byte for byte.
    Text(Box<str>),
    /// A number.
    Number(Number),
    /// A boolean.
    Bool(bool),
}

impl fmt::Display for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

/// A number: digits without a zero at either end, times a power of ten. Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    is_negative: bool,
    digits: Box<str>,
    exponent: i64,
}

/// Why a text is not a number here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It is not a number of JSON.
    #[error("is not a number of JSON, such as 7, -1.5 or 2e3")]
    Syntax,
    /// Its exponent has more than 18 digits. It is no number that a catalog can have.
    #[error("has an exponent of more than 18 digits")]
    Exponent,
}

impl Number {
    /// Reads a number as JSON writes it.
    ///
    /// # Errors
    /// It is not a number of JSON, or its exponent is too large to be one that a catalog has.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (rest, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !is_digits(whole) || has_leading_zero || !fraction.is_none_or(is_digits) {
            return Err(NumberError::Syntax);
        }
        let (is_below, power) = match exponent.map(|text| (text.strip_prefix('-'), text)) {
            None => (false, "0"),
            Some((Some(power), _)) => (true, power),
            Some((None, text)) => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if !is_digits(power) {
            return Err(NumberError::Syntax);
        }
        let fraction = fraction.unwrap_or_default();
        let all = format!("{whole}{fraction}");
        let without_end = all.trim_end_matches('0');
        let digits = without_end.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self { is_negative: false, digits: digits.into(), exponent: 0 });
        }
        let power = power.trim_start_matches('0');
        if power.len() > 18 {
            return Err(NumberError::Exponent);
        }
        let power: i64 = if power.is_empty() { 0 } else { power.parse().unwrap_or(i64::MAX) };
        let power = if is_below { power.checked_neg() } else { Some(power) };
        let count = |text: &str| i64::try_from(text.len()).ok();
        let zeros = all.len().checked_sub(without_end.len()).and_then(|n| i64::try_from(n).ok());
        let exponent = power
            .and_then(|power| power.checked_sub(count(fraction)?))
            .and_then(|power| power.checked_add(zeros?))
            .ok_or(NumberError::Exponent)?;
        Ok(Self { is_negative, digits: digits.into(), exponent })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_negative, digits, exponent } = self;
        let sign = if *is_negative { "-" } else { "" };
        match (digits.is_empty(), exponent) {
            (true, _) => f.write_str("0"),
            (_, 0) => write!(f, "{sign}{digits}"),
            (_, exponent) => write!(f, "{sign}{digits}e{exponent}"),
        }
    }
}

/// Properties by name. A value that equals nothing, such as an object, has its name here too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<Box<str>, Option<PropertyValue>>);

impl Properties {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// The text is not a JSON object, or it names a member twice.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Adds a property, `None` for a value that equals nothing. False if the name is there already; then
    /// nothing is added.
    #[must_use]
    pub fn insert(&mut self, name: impl Into<Box<str>>, value: Option<PropertyValue>) -> bool {
        use std::collections::btree_map::Entry;
        match self.0.entry(name.into()) {
            Entry::Vacant(place) => {
                place.insert(value);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// The value of a property, if it has one that a rule can have.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PropertyValue> {
        self.0.get(name)?.as_ref()
    }

    /// Whether there is a property of this name, whatever its value.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there are no properties.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&PropertyValue>)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_ref()))
    }
}

/// Reads the text of one JSON value; `None` for a value that equals nothing.
fn value(raw: &RawValue) -> Result<Option<PropertyValue>, serde_json::Error> {
    let text = raw.get().trim_ascii();
    Ok(match text.as_bytes().first() {
        Some(b'"') => Some(PropertyValue::Text(serde_json::from_str(text)?)),
        Some(b't' | b'f') => Some(PropertyValue::Bool(serde_json::from_str(text)?)),
        Some(b'-' | b'0'..=b'9') => match Number::parse(text) {
            Ok(number) => Some(PropertyValue::Number(number)),
            // Larger, or closer to zero, than any number of a catalog.
            Err(NumberError::Exponent) => None,
            Err(error @ NumberError::Syntax) => return Err(serde_json::Error::custom(error)),
        },
        _ => None,
    })
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PropertiesVisitor;
        impl<'de> Visitor<'de> for PropertiesVisitor {
            type Value = Properties;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of properties")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut properties = Properties::default();
                while let Some((name, raw)) = map.next_entry::<Box<str>, Box<RawValue>>()? {
                    let value = value(&raw).map_err(A::Error::custom)?;
                    if !properties.insert(name, value) {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(properties)
            }
        }
        deserializer.deserialize_map(PropertiesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect(text)
    }

    #[test]
    fn numbers_are_equal_by_their_exact_value() {
        for same in [
            ["1", "1.0"],
            ["1", "10e-1"],
            ["1", "0.1E+1"],
            ["1", "1e0000000000000000000000000"],
            ["0", "-0.000"],
            ["0", "0e999999999999999999999999999"],
            ["120", "1.2e2"],
            ["-0.5", "-5e-1"],
            ["0.1", "0.10"],
        ] {
            assert_eq!(number(same[0]), number(same[1]), "{same:?}");
        }
        for other in [
            ["9007199254740993", "9007199254740992"],
            ["0.1", "0.1000000000000000055511151231257827"],
            ["1", "-1"],
            ["1e400", "1e401"],
            ["1e-400", "0"],
            ["10", "1"],
        ] {
            assert_ne!(number(other[0]), number(other[1]), "{other:?}");
        }
        for exponent in
            ["1e9999999999999999999", "1e-1000000000000000000", "-2.5e1000000000000000000"]
        {
            assert_eq!(Number::parse(exponent), Err(NumberError::Exponent), "{exponent}");
        }
        for wrong in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1e", "1e+", "1e1.0", "0x10", "1_0", " 1",
            "NaN", "--1", "1.e2", "\u{661}",
        ] {
            assert_eq!(Number::parse(wrong), Err(NumberError::Syntax), "{wrong:?}");
        }
    }

    #[test]
    fn a_number_is_shown_as_one_that_is_equal() {
        for text in ["0", "-7", "1.25", "1e30", "120"] {
            assert_eq!(number(&number(text).to_string()), number(text));
        }
    }

    #[test]
    fn properties_keep_the_type_of_each_value() {
        let json = r#"{ "a": "1", "b": 1.0, "c": true, "d": null, "e": [1], "f": {"x": 1, "x": 2},
                        "g": 1e99999999999999999999, "\u0068": "\u00e9" }"#;
        let read = Properties::parse(json).expect("an object");
        assert_eq!(read.get("a"), Some(&PropertyValue::Text("1".into())));
        assert_eq!(read.get("b"), Some(&PropertyValue::Number(number("1"))));
        assert_eq!(read.get("c"), Some(&PropertyValue::Bool(true)));
        assert_eq!(read.get("h"), Some(&PropertyValue::Text("é".into())));
        for other in ["d", "e", "f", "g"] {
            assert!(read.contains(other) && read.get(other).is_none(), "{other}");
        }
        assert!(!read.contains("x"));
        assert_eq!(read.iter().count(), 8);
    }

    #[test]
    fn what_is_not_one_object_of_json_is_an_error() {
        for wrong in [
            "",
            "[]",
            "null",
            "1",
            "{",
            "{\"a\": 01}",
            "{\"a\": 1, \"a\": 1}",
            "{\"a\": 1, \"\\u0061\": 2}",
            "{\"a\": \"\\ud800\"}",
            "{} {}",
            "{\"a\": tru}",
        ] {
            assert!(Properties::parse(wrong).is_err(), "{wrong}");
        }
    }
}
