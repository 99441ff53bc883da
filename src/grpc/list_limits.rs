//! List limits: the maximum length of each list of a request, checked on the bytes before they are
//! decoded.
//!
//! An item of two bytes can decode into hundreds of bytes. A few megabytes of empty checks would take a
//! gigabyte of memory and a second of a core before a parser could reject them. So the items are counted
//! first, with the descriptors of the API (the encoding:
//! <https://protobuf.dev/programming-guides/encoding/>). A message with too many items is not decoded.
//!
//! Not here: the content of the items; see [`crate::wire::parse`].

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::{Arc, LazyLock};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::authority::problem::Violation;
use crate::proto;
use crate::wire::validate::{
    InvalidRequest, MAX_CHANGE_SCOPES, MAX_CHECK_SCOPES, MAX_CHECKS, MAX_IMPORTED, MAX_ROLES,
};

/// Messages shorter than this many bytes are not counted, since they cannot have many items.
pub(super) const COUNTED_FROM: usize = 1 << 10;
/// The most items of all lists of a message together.
const MAX_ITEMS: usize = 200_000;
/// The most items of a list that has no limit of its own below.
const MAX_OTHER: usize = 1_000;
/// The most paths of a field mask: no resource has as many fields.
const MAX_PATHS: usize = 100;
/// The maximum depth of nested messages; the decoder rejects deeper ones.
const MAX_DEPTH: usize = 100;

/// The limit of a list: the field `field` of the message `message`.
fn limit(message: &str, field: &str) -> usize {
    match (message, field) {
        ("BatchCheckRequest", "checks") => MAX_CHECKS,
        ("CheckRequest" | "Token", "scopes") => MAX_CHECK_SCOPES,
        ("ImportCredentialsRequest", _) => MAX_IMPORTED,
        (_, "roles") => MAX_ROLES,
        (_, "paths") => MAX_PATHS,
        (_, "scopes" | "names") => MAX_CHANGE_SCOPES,
        _ => MAX_OTHER,
    }
}

/// A field that can hold more than one value.
enum Field {
    /// A list of strings or bytes.
    Strings { name: Box<str>, limit: usize },
    /// A list of numbers, which may be packed into one field.
    Numbers { name: Box<str>, limit: usize },
    /// A list of messages.
    Messages { name: Box<str>, limit: usize, shape: Arc<str> },
    /// One message, whose occurrences are merged.
    Message { name: Box<str>, shape: Arc<str> },
}

/// The fields of a message that can hold more than one value, by field number.
type Shape = HashMap<u64, Field>;

/// All messages of the API, by full name.
static SHAPES: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| {
    let mut shapes = HashMap::new();
    let all = [proto::DESCRIPTORS, proto::envoy::DESCRIPTORS];
    let files = all.map(|bytes| FileDescriptorSet::decode(bytes).unwrap_or_default().file);
    for file in files.iter().flatten() {
        for message in &file.message_type {
            add(&mut shapes, file.package(), message);
        }
    }
    shapes
});

fn add(shapes: &mut HashMap<String, Shape>, parent: &str, message: &DescriptorProto) {
    let full_name = format!("{parent}.{}", message.name());
    let mut shape = Shape::new();
    for field in &message.field {
        let is_list = field.label() == Label::Repeated;
        let name: Box<str> = field.name().into();
        let limit = limit(message.name(), &name);
        let of: Arc<str> = field.type_name().trim_start_matches('.').into();
        let known = match (field.r#type(), is_list) {
            (Type::Message, true) => Field::Messages { name, limit, shape: of },
            (Type::Message, false) => Field::Message { name, shape: of },
            (Type::String | Type::Bytes, true) => Field::Strings { name, limit },
            (_, true) => Field::Numbers { name, limit },
            (_, false) => continue,
        };
        shape.insert(u64::from(field.number().unsigned_abs()), known);
    }
    for nested in &message.nested_type {
        add(shapes, &full_name, nested);
    }
    shapes.insert(full_name, shape);
}

/// Counts the lists of a message of this full name.
///
/// # Errors
/// A list is longer than its limit. Malformed bytes are no error here: the decoder rejects them, and it
/// stops at the same byte.
pub(super) fn count(full_name: &str, bytes: &[u8]) -> Result<(), InvalidRequest> {
    if bytes.len() < COUNTED_FROM {
        return Ok(());
    }
    let Some(shape) = SHAPES.get(full_name) else { return Ok(()) };
    Counting::default().message(shape, &mut ListCounts::default(), bytes, &Path::Top, 0)
}

/// The path of a message in the request.
enum Path<'a> {
    Top,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, &'a str, usize),
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Field(parent, name) => write!(f, "{parent}{name}."),
            Self::Item(parent, name, index) => write!(f, "{parent}{name}[{index}]."),
        }
    }
}

/// The number of items so far of each list of a message, and of the lists in its message fields, whose
/// occurrences are merged.
#[derive(Default)]
struct ListCounts {
    lists: HashMap<u64, usize>,
    merged: HashMap<u64, ListCounts>,
}

/// The number of items of all lists so far.
#[derive(Default)]
struct Counting {
    items: usize,
}

impl Counting {
    fn message(
        &mut self,
        shape: &Shape,
        counts: &mut ListCounts,
        mut bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), InvalidRequest> {
        while let Some((number, content)) = next_field(&mut bytes) {
            let Some(field) = shape.get(&number) else { continue };
            match field {
                Field::Strings { name, limit } => {
                    self.items(counts.lists.entry(number).or_default(), 1, *limit, path, name)?;
                }
                Field::Numbers { name, limit } => {
                    // A number has at least one byte.
                    let more = content.len().max(1);
                    self.items(counts.lists.entry(number).or_default(), more, *limit, path, name)?;
                }
                Field::Messages { name, limit, shape } => {
                    let count = counts.lists.entry(number).or_default();
                    self.items(count, 1, *limit, path, name)?;
                    let path = Path::Item(path, name, *count - 1);
                    self.inner(shape, &mut ListCounts::default(), content, &path, depth)?;
                }
                Field::Message { name, shape } => {
                    self.items(&mut 0, 1, usize::MAX, path, name)?;
                    let counts = counts.merged.entry(number).or_default();
                    self.inner(shape, counts, content, &Path::Field(path, name), depth)?;
                }
            }
        }
        Ok(())
    }

    fn inner(
        &mut self,
        shape: &str,
        counts: &mut ListCounts,
        bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), InvalidRequest> {
        match SHAPES.get(shape) {
            Some(shape) if depth < MAX_DEPTH => self.message(shape, counts, bytes, path, depth + 1),
            _ => Ok(()),
        }
    }

    /// Counts more items of a list that has `count` so far.
    fn items(
        &mut self,
        count: &mut usize,
        more: usize,
        limit: usize,
        path: &Path<'_>,
        name: &str,
    ) -> Result<(), InvalidRequest> {
        *count += more;
        self.items += more;
        let too_many = |description: String| {
            Err(InvalidRequest::TooMany(Violation::new(format!("{path}{name}"), description)))
        };
        if *count > limit {
            return too_many(format!("has more items than the limit of {limit}: send fewer"));
        }
        if self.items > MAX_ITEMS {
            return too_many(format!(
                "has an item above the limit of {MAX_ITEMS} items in all lists of the message: send \
                 fewer"
            ));
        }
        Ok(())
    }
}

/// The wire types of fields (the low bits of a tag).
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const WITH_LENGTH: u64 = 2;
const START_GROUP: u64 = 3;
const END_GROUP: u64 = 4;
const FIXED_32: u64 = 5;

/// The next field: its number, and its content if it has a length. None at the end, and where the bytes
/// are malformed.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    // No field of the API is a group, so the decoder skips all groups.
    let mut groups = 0_usize;
    loop {
        let tag = varint(bytes)?;
        let content = match tag & 7 {
            VARINT => varint(bytes).map(|_| &[][..])?,
            FIXED_64 => skip(bytes, 8)?,
            WITH_LENGTH => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                skip(bytes, length)?
            }
            FIXED_32 => skip(bytes, 4)?,
            START_GROUP => {
                groups += 1;
                continue;
            }
            END_GROUP => {
                groups = groups.checked_sub(1)?;
                continue;
            }
            _ => return None,
        };
        if groups == 0 {
            return Some((tag >> 3, content));
        }
    }
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{BatchCheckRequest, CheckRequest, Token, UpdateCompanyRequest};

    fn rejected_field<M: Message + prost::Name>(bytes: &[u8]) -> Option<String> {
        match count(&M::full_name(), bytes) {
            Ok(()) => None,
            Err(InvalidRequest::TooMany(violation)) => Some(violation.subject),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// A field with this content.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
        bytes
    }

    #[test]
    fn every_list_of_every_request_has_a_limit() {
        let mut lists = 0;
        for (name, shape) in SHAPES.iter().filter(|(name, _)| name.ends_with("Request")) {
            for (number, known) in shape {
                let (item, count) = match known {
                    Field::Strings { limit, .. }
                    | Field::Numbers { limit, .. }
                    | Field::Messages { limit, .. } => {
                        (field(u8::try_from(*number).expect("small"), b""), *limit)
                    }
                    Field::Message { .. } => continue,
                };
                lists += 1;
                let fits = item.repeat(count);
                assert!(super::count(name, &fits).is_ok(), "{name} {number}");
                let one_more = item.repeat((count + 1).max(COUNTED_FROM));
                assert!(super::count(name, &one_more).is_err(), "{name} {number}");
            }
        }
        assert!(lists > 10, "{lists}");
    }

    #[test]
    fn nested_lists_are_counted_separately() {
        let check =
            |count| CheckRequest { scopes: vec![String::new(); count], ..Default::default() };
        let batch = |checks| BatchCheckRequest { checks }.encode_to_vec();
        assert_eq!(
            rejected_field::<BatchCheckRequest>(&batch(vec![check(1_000), check(1_000)])),
            None
        );
        let bytes = batch(vec![check(1_000), check(1_001)]);
        assert_eq!(
            rejected_field::<BatchCheckRequest>(&bytes).as_deref(),
            Some("checks[1].scopes")
        );
        let bytes = batch(vec![CheckRequest::default(); 1_001]);
        assert_eq!(rejected_field::<BatchCheckRequest>(&bytes).as_deref(), Some("checks"));
        let all = batch(vec![check(1_000); 201]);
        assert_eq!(
            rejected_field::<BatchCheckRequest>(&all).as_deref(),
            Some("checks[199].scopes")
        );
    }

    #[test]
    fn merged_message_fields_are_counted_together() {
        let token = Token { scopes: vec![String::new(); 600], ..Default::default() };
        let half = CheckRequest { token: Some(token), ..Default::default() }.encode_to_vec();
        assert_eq!(rejected_field::<CheckRequest>(&half), None);
        let whole = [half.clone(), half].concat();
        let merged = CheckRequest::decode(&*whole).expect("a message").token.expect("a token");
        assert_eq!(merged.scopes.len(), 1_200, "the decoder merges them");
        assert_eq!(rejected_field::<CheckRequest>(&whole).as_deref(), Some("token.scopes"));
        let mask = prost_types::FieldMask { paths: vec![String::new(); 600] };
        let update = UpdateCompanyRequest { update_mask: Some(mask), ..Default::default() };
        let field = rejected_field::<UpdateCompanyRequest>(&update.encode_to_vec());
        assert_eq!(field.as_deref(), Some("update_mask.paths"));
    }

    #[test]
    fn items_after_skipped_fields_are_counted() {
        let check = field(1, b"");
        // Unknown fields of every wire type, with nested groups.
        let skipped: [&[u8]; 5] = [
            &[0x78, 1],
            &[0x79, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x7a, 2, 0x7b, 0x7b],
            &[0x7d, 0, 0, 0, 0],
            &[0x7b, 0x83, 1, 0x0a, 1, 0, 0x84, 1, 0x7c],
        ];
        for skipped in skipped {
            let bytes = [skipped, &check.repeat(1_001)].concat();
            let decoded = BatchCheckRequest::decode(&*bytes).expect("a message");
            assert_eq!(decoded.checks.len(), 1_001, "the decoder skips {skipped:?}");
            assert_eq!(rejected_field::<BatchCheckRequest>(&bytes).as_deref(), Some("checks"));
        }
    }
}
