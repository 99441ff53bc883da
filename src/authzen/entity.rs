//! Entity: the subject, the action, the resource and the context of a request, as its JSON has them.
//!
//! Not here: what they ask; see [`super::question`].

use std::borrow::Cow;

use super::json::Value;

/// Why a request, or an item of it, is malformed: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// A field has a wrong type.
    fn field(entity: &str, field: &str, must: &str) -> Self {
        Self(format!("`{entity}.{field}` {must}"))
    }

    /// An entity is not there, or is no object.
    pub(super) fn no_object(entity: &str) -> Self {
        Self(format!("`{entity}` must be an object"))
    }
}

const NON_EMPTY: &str = "must be a string that is not empty";

/// A subject, or the type of those that are searched for.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) kind: Cow<'a, str>,
    /// Empty in a search for it.
    pub(super) id: Cow<'a, str>,
}

/// An action.
#[derive(Clone, Debug)]
pub(super) struct Action<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) properties: Option<Value<'a>>,
}

/// A resource, or the type of those that are searched for.
#[derive(Clone, Debug)]
pub(super) struct Resource<'a> {
    pub(super) kind: Cow<'a, str>,
    /// Empty in a search for it.
    pub(super) id: Cow<'a, str>,
    pub(super) properties: Option<Value<'a>>,
}

/// A context. Its members may have any type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context<'a> {
    pub(super) audience: Option<Value<'a>>,
    pub(super) token: Option<Value<'a>>,
    pub(super) bearer_token: Option<Value<'a>>,
    pub(super) accept_reach: Option<Value<'a>>,
}

impl<'a> Subject<'a> {
    /// A subject with an id.
    ///
    /// # Errors
    /// A member is missing, is empty or has a wrong type.
    pub(super) fn read(value: Value<'a>) -> Result<Self, Malformed> {
        let [kind, id] = typed("subject", value)?;
        Ok(Self { kind: required("subject", "type", kind)?, id: required("subject", "id", id)? })
    }

    /// The type of the subjects that are searched for.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(super) fn read_type(value: Value<'a>) -> Result<Self, Malformed> {
        let [kind, _] = typed("subject", value)?;
        Ok(Self { kind: required("subject", "type", kind)?, id: Cow::default() })
    }
}

impl<'a> Action<'a> {
    /// An action.
    ///
    /// # Errors
    /// A member is missing, is empty or has a wrong type.
    pub(super) fn read(value: Value<'a>) -> Result<Self, Malformed> {
        let members = value.members(&["name", "properties"]);
        let [name, properties] = members.ok_or_else(|| Malformed::no_object("action"))?;
        let properties = object("action", "properties", properties)?;
        Ok(Self { name: required("action", "name", name)?, properties })
    }
}

impl<'a> Resource<'a> {
    /// A resource with an id.
    ///
    /// # Errors
    /// A member is missing, is empty or has a wrong type.
    pub(super) fn read(value: Value<'a>) -> Result<Self, Malformed> {
        let [_, id] = typed("resource", value)?;
        Ok(Self { id: required("resource", "id", id)?, ..Self::read_type(value)? })
    }

    /// The type of the resources that are searched for.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(super) fn read_type(value: Value<'a>) -> Result<Self, Malformed> {
        let [kind, _] = typed("resource", value)?;
        let [properties] = value.members(&["properties"]).unwrap_or_default();
        Ok(Self {
            kind: required("resource", "type", kind)?,
            id: Cow::default(),
            properties: properties.filter(|properties| properties.is_object()),
        })
    }
}

impl<'a> Context<'a> {
    /// A context.
    ///
    /// # Errors
    /// It is not an object.
    pub(super) fn read(value: Value<'a>) -> Result<Self, Malformed> {
        let members = value.members(&["audience", "token", "bearer_token", "accept_reach"]);
        let [audience, token, bearer_token, accept_reach] =
            members.ok_or_else(|| Malformed::no_object("context"))?;
        Ok(Self { audience, token, bearer_token, accept_reach })
    }
}

/// The type and the id of an entity, whose properties must be an object if it has any.
fn typed<'a>(entity: &str, value: Value<'a>) -> Result<[Option<Value<'a>>; 2], Malformed> {
    let members = value.members(&["type", "id", "properties"]);
    let [kind, id, properties] = members.ok_or_else(|| Malformed::no_object(entity))?;
    object(entity, "properties", properties)?;
    Ok([kind, id])
}

/// A string that must be there and not be empty.
fn required<'a>(
    entity: &str,
    field: &str,
    value: Option<Value<'a>>,
) -> Result<Cow<'a, str>, Malformed> {
    let text = value.and_then(Value::string).filter(|text| !text.is_empty());
    text.ok_or_else(|| Malformed::field(entity, field, NON_EMPTY))
}

/// An object, if it is there.
fn object<'a>(
    entity: &str,
    field: &str,
    value: Option<Value<'a>>,
) -> Result<Option<Value<'a>>, Malformed> {
    match value {
        Some(value) if !value.is_object() => {
            Err(Malformed::field(entity, field, "must be an object"))
        }
        value => Ok(value),
    }
}
