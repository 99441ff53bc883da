//! Lists: how long each list of a request may be, checked on the bytes before they are decoded.
//!
//! A message of two bytes per item decodes into hundreds of bytes per item: a few megabytes of
//! empty checks would take a gigabyte and a second of a core before anything could refuse them.
//! So the fields are counted first, by the contract's own descriptors (the encoding:
//! <https://protobuf.dev/programming-guides/encoding/>), and nothing is decoded of a message that
//! has too many.
//!
//! Not here: what the items say; see [`crate::wire::parse`].

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::{Arc, LazyLock};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::proto;
use crate::wire::validate::{
    InvalidRequest, MAX_CHANGE_SCOPES, MAX_CHECK_SCOPES, MAX_CHECKS, MAX_IMPORTED, MAX_ROLES,
    Violation,
};

/// Shorter messages are decoded as they are: they have no room for much.
pub(super) const COUNTED_FROM: usize = 1 << 10;
/// The most items of all lists of a message together.
const MAX_ITEMS: usize = 200_000;
/// The most items of a list that has no limit of its own below.
const MAX_OTHER: usize = 1_000;
/// The most paths of a field mask: no resource has as many fields.
const MAX_PATHS: usize = 100;
/// How deep messages may stand in each other: the decoder refuses deeper ones.
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

/// What is known of a field.
enum Field {
    /// A list of texts.
    Texts { name: Box<str>, limit: usize },
    /// A list of numbers. Several may stand in one field.
    Numbers { name: Box<str>, limit: usize },
    /// A list of messages.
    Messages { name: Box<str>, limit: usize, shape: Arc<str> },
    /// One message, whose occurrences are merged.
    Message { name: Box<str>, shape: Arc<str> },
}

/// The fields of a message that can hold more than one value, by number.
type Shape = HashMap<u64, Field>;

/// All messages of the contract, by full name.
static SHAPES: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| {
    let mut shapes = HashMap::new();
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default().file;
    for file in &files {
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
            (Type::String | Type::Bytes, true) => Field::Texts { name, limit },
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
/// A list is longer than its limit. Bytes that are no message are left to the decoder, which
/// stops where this does.
pub(super) fn count(full_name: &str, bytes: &[u8]) -> Result<(), InvalidRequest> {
    if bytes.len() < COUNTED_FROM {
        return Ok(());
    }
    let Some(shape) = SHAPES.get(full_name) else { return Ok(()) };
    Counting::default().message(shape, &mut Counts::default(), bytes, &Path::Top, 0)
}

/// Where a message stands in the request.
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

/// How many items each list of a message has so far, and those of the messages in it that are
/// merged when they occur again.
#[derive(Default)]
struct Counts {
    lists: HashMap<u64, usize>,
    merged: HashMap<u64, Counts>,
}

/// The items of all lists so far.
#[derive(Default)]
struct Counting {
    items: usize,
}

impl Counting {
    fn message(
        &mut self,
        shape: &Shape,
        counts: &mut Counts,
        mut bytes: &[u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), InvalidRequest> {
        while let Some((number, content)) = next_field(&mut bytes) {
            let Some(field) = shape.get(&number) else { continue };
            match field {
                Field::Texts { name, limit } => {
                    self.items(counts.lists.entry(number).or_default(), 1, *limit, path, name)?;
                }
                Field::Numbers { name, limit } => {
                    // Each takes a byte or more.
                    let more = content.len().max(1);
                    self.items(counts.lists.entry(number).or_default(), more, *limit, path, name)?;
                }
                Field::Messages { name, limit, shape } => {
                    let count = counts.lists.entry(number).or_default();
                    self.items(count, 1, *limit, path, name)?;
                    let path = Path::Item(path, name, *count - 1);
                    self.inner(shape, &mut Counts::default(), content, &path, depth)?;
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
        counts: &mut Counts,
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
            Err(InvalidRequest::TooMany(Violation { field: format!("{path}{name}"), description }))
        };
        if *count > limit {
            return too_many(format!("has more items than the limit of {limit}: send fewer"));
        }
        if self.items > MAX_ITEMS {
            let all = "takes the lists of the message above the limit of";
            return too_many(format!("{all} {MAX_ITEMS} items together: send fewer at once"));
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

/// The next field: its number, and its content if it has a length. None at the end, and where the
/// bytes are no message.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    // No field of the contract is a group: the decoder skips them, whatever they hold.
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
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
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

    fn refused<M: Message + prost::Name>(bytes: &[u8]) -> Option<String> {
        match count(&M::full_name(), bytes) {
            Ok(()) => None,
            Err(InvalidRequest::TooMany(violation)) => Some(violation.field),
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
                    Field::Texts { limit, .. }
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
    fn lists_in_lists_are_counted_each_for_itself() {
        let check =
            |count| CheckRequest { scopes: vec![String::new(); count], ..Default::default() };
        let batch = |checks| BatchCheckRequest { checks }.encode_to_vec();
        assert_eq!(refused::<BatchCheckRequest>(&batch(vec![check(1_000), check(1_000)])), None);
        let bytes = batch(vec![check(1_000), check(1_001)]);
        assert_eq!(refused::<BatchCheckRequest>(&bytes).as_deref(), Some("checks[1].scopes"));
        let bytes = batch(vec![CheckRequest::default(); 1_001]);
        assert_eq!(refused::<BatchCheckRequest>(&bytes).as_deref(), Some("checks"));
        let all = batch(vec![check(1_000); 201]);
        assert_eq!(refused::<BatchCheckRequest>(&all).as_deref(), Some("checks[199].scopes"));
    }

    #[test]
    fn a_message_in_pieces_is_counted_as_a_whole() {
        let token = Token { scopes: vec![String::new(); 600], ..Default::default() };
        let half = CheckRequest { token: Some(token), ..Default::default() }.encode_to_vec();
        assert_eq!(refused::<CheckRequest>(&half), None);
        let whole = [half.clone(), half].concat();
        let merged = CheckRequest::decode(&*whole).expect("a message").token.expect("a token");
        assert_eq!(merged.scopes.len(), 1_200, "the decoder merges them");
        assert_eq!(refused::<CheckRequest>(&whole).as_deref(), Some("token.scopes"));
        let mask = prost_types::FieldMask { paths: vec![String::new(); 600] };
        let update = UpdateCompanyRequest { update_mask: Some(mask), ..Default::default() };
        let found = refused::<UpdateCompanyRequest>(&update.encode_to_vec());
        assert_eq!(found.as_deref(), Some("update_mask.paths"));
    }

    #[test]
    fn nothing_hides_behind_what_the_decoder_skips() {
        let check = field(1, b"");
        // Unknown fields of every wire type, groups in groups among them.
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
            assert_eq!(refused::<BatchCheckRequest>(&bytes).as_deref(), Some("checks"));
        }
    }
}
