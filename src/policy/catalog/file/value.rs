//! Value: a YAML value that may be a word, a list or a map.
//!
//! Serde's untagged enums lose the locations of what is in them, so these visitors keep them.
//!
//! Not here: which of the forms a key allows, and the words; see [`super::validator`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_saphyr::Spanned;

use crate::policy::catalog::issuer::ClaimValue;

/// A YAML value, whose map has the form `M`.
#[derive(Debug)]
pub(in crate::policy::catalog) enum RawValue<M = IgnoredAny> {
    /// A list.
    List(Vec<Spanned<String>>),
    /// A map.
    Map(M),
    /// A scalar.
    Word(String),
    /// Nothing, as in `scopes:`.
    Nothing,
}

impl<'de, M: Deserialize<'de>> Deserialize<'de> for RawValue<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawValueVisitor<M>(PhantomData<M>);
        impl<'de, M: Deserialize<'de>> Visitor<'de> for RawValueVisitor<M> {
            type Value = RawValue<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, a list or a map")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawValue<M>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(RawValue::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawValue<M>, A::Error> {
                M::deserialize(MapAccessDeserializer::new(map)).map(RawValue::Map)
            }

            fn visit_str<E>(self, word: &str) -> Result<RawValue<M>, E> {
                Ok(RawValue::Word(word.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawValue<M>, E> {
                Ok(RawValue::Word(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<RawValue<M>, E> {
                Ok(RawValue::Word(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<RawValue<M>, E> {
                Ok(RawValue::Word(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<RawValue<M>, E> {
                Ok(RawValue::Word(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<RawValue<M>, E> {
                Ok(RawValue::Nothing)
            }
        }
        deserializer.deserialize_any(RawValueVisitor(PhantomData))
    }
}

/// A key that is written, also where its value is nothing.
pub(in crate::policy::catalog) fn present_key<'de, D, T>(reader: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(reader).map(Some)
}

/// A scalar, of which the type counts.
#[derive(Debug)]
pub(in crate::policy::catalog) enum RawScalar {
    /// A string.
    Text(Box<str>),
    /// A boolean.
    Bool(bool),
    /// A number, whose exact value only the text of the file has.
    Number,
    /// Nothing, as in `status:`.
    Nothing,
}

impl<'de> Deserialize<'de> for RawScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawScalarVisitor;
        impl Visitor<'_> for RawScalarVisitor {
            type Value = RawScalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_str<E>(self, value: &str) -> Result<RawScalar, E> {
                Ok(RawScalar::Text(value.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawScalar, E> {
                Ok(RawScalar::Bool(value))
            }

            fn visit_i64<E>(self, _: i64) -> Result<RawScalar, E> {
                Ok(RawScalar::Number)
            }

            fn visit_u64<E>(self, _: u64) -> Result<RawScalar, E> {
                Ok(RawScalar::Number)
            }

            fn visit_f64<E>(self, _: f64) -> Result<RawScalar, E> {
                Ok(RawScalar::Number)
            }

            fn visit_unit<E>(self) -> Result<RawScalar, E> {
                Ok(RawScalar::Nothing)
            }
        }
        deserializer.deserialize_any(RawScalarVisitor)
    }
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimValueVisitor;
        impl Visitor<'_> for ClaimValueVisitor {
            type Value = ClaimValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number or a boolean")
            }

            fn visit_str<E>(self, value: &str) -> Result<ClaimValue, E> {
                Ok(ClaimValue::String(value.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Number(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<ClaimValue, E> {
                let number = i64::try_from(value);
                let too_large = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
                number.map(ClaimValue::Number).map_err(too_large)
            }
        }
        deserializer.deserialize_any(ClaimValueVisitor)
    }
}
