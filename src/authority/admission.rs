//! Admission: whether a call may begin, before its message is read, and whether its caller may name the
//! companies in the message, when it has arrived (D8). Both are the same for every transport.
//!
//! Not here: the bounds of a worker or a connection, which the transport has; and how an error is
//! rendered.

use std::time::Instant;

use super::caller_limits::{CallerLimits, CallsByKey};
use super::noted_call::NotedCall;
use super::operation::{Companies, Effect, Operation};
use super::{Authority, Session};
use crate::metrics::Counted;
use crate::policy::caller::Caller;
use crate::policy::keyring::AuthenticationError;
use crate::policy::revision::Revision;
use crate::policy::secret::{SecretKind, SecretText};

/// How many urgent calls above the limit of a worker are admitted; see [`Operation::is_urgent`].
pub const URGENT_RESERVE: usize = 64;

/// What a caller presents to prove who it is.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The key, if it sends one; an error if what it sends cannot be read as a key.
    pub key: Result<Option<&'a str>, AuthenticationError>,
    /// The names of its verified client certificate.
    pub certificate: &'a [String],
}

/// The calls in flight on the worker of a call, and the limits that hold for the call.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The calls in flight on the worker, including this one.
    pub in_flight: usize,
    /// The limit of calls in flight on the worker.
    pub max_in_flight: usize,
    /// The calls in flight on the worker, by key.
    pub by_key: &'a CallsByKey,
    /// The limits of each key.
    pub limits: &'a CallerLimits,
}

/// The part of the calls in flight that one API client may have: one of this many.
const CLIENT_SHARE: usize = 8;

impl Load<'_> {
    /// Admits a request of an API client that has proven who it is, by the creation revision of its
    /// credential, and counts it as in flight until the returned value is dropped (T37).
    ///
    /// # Errors
    /// A limit of all clients or of this one is reached.
    pub fn admit_client(self, credential: Revision) -> Result<Counted, AdmissionError> {
        let Load { in_flight, max_in_flight, by_key, limits } = self;
        if in_flight > max_in_flight {
            return Err(AdmissionError::Overloaded(max_in_flight));
        }
        let (counted, in_flight) = by_key.acquire(credential);
        let limit = max_in_flight.div_ceil(CLIENT_SHARE);
        if in_flight > limit {
            return Err(AdmissionError::TooManyOfKey(limit));
        }
        limits.count(credential, false, Instant::now()).map_err(AdmissionError::RateLimited)?;
        Ok(counted)
    }
}

/// Whether a call may be rejected when the memory budget is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The request and the response may be rejected.
    Read,
    /// The request may be rejected, but not the response, since the change is already committed.
    Change,
    /// As for a change, and a short request may not be rejected either.
    Urgent,
}

/// An admitted call.
#[derive(Debug)]
pub struct Admission {
    /// The call, which noted the session of the lease before its caller was authenticated.
    pub noted: NotedCall,
    /// The method.
    pub operation: &'static Operation,
    /// The caller.
    pub caller: Caller,
    /// How urgent the call is for the memory budget.
    pub urgency: Urgency,
    /// Counts the call as in flight for its key until it is dropped; none without a key.
    pub in_flight: Option<Counted>,
}

/// Why a call may not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// The caller is not authenticated.
    Unauthenticated {
        /// The reason.
        error: AuthenticationError,
        /// The public id in the key that it presents.
        key_id: Option<Box<str>>,
    },
    /// The worker has as many calls in flight as it admits, which is this limit.
    Overloaded(usize),
    /// There is no such method.
    UnknownMethod,
    /// No role of this caller permits the method.
    Role(Caller),
    /// The key has as many calls in flight on this worker as one key may have, which is this limit.
    TooManyOfKey(usize),
    /// The key is above its rate limit, in calls a second.
    RateLimited(u32),
}

/// Why a caller may not use the message that it sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The key of this caller was revoked, or expired, while the message arrived.
    Revoked(Caller),
    /// The key of this caller is not valid for every company that the message names.
    Company(Caller),
}

impl Authority {
    /// Admits a call of a method, or rejects it: authenticates the caller, compares its roles with
    /// those of the method, and applies the limits of its key. Without an operation there is no such
    /// method, which only an authenticated caller learns.
    ///
    /// # Errors
    /// The caller is not authenticated or not permitted, there is no such method, or a limit is reached.
    pub fn admit(
        &self,
        noted: NotedCall,
        operation: Option<&'static Operation>,
        presented: Presented<'_>,
        Load { in_flight, max_in_flight, by_key, limits }: Load<'_>,
    ) -> Result<Admission, AdmissionError> {
        let caller = self.caller(presented)?;
        let urgent = operation.is_some_and(|operation| operation.is_urgent(&caller));
        let reserve = if urgent { URGENT_RESERVE } else { 0 };
        if in_flight > max_in_flight + reserve {
            return Err(AdmissionError::Overloaded(max_in_flight));
        }
        let operation = operation.ok_or(AdmissionError::UnknownMethod)?;
        if !caller.roles().intersects(operation.roles) {
            return Err(AdmissionError::Role(caller));
        }
        let urgency = match operation.effect {
            Effect::Read => Urgency::Read,
            Effect::Removal if urgent => Urgency::Urgent,
            Effect::Change | Effect::Removal => Urgency::Change,
        };
        let in_flight = match &caller {
            Caller::Internal | Caller::Anonymous => None,
            Caller::Key(key) => {
                let (of_key, in_flight) = by_key.acquire(key.created_at);
                let limit = (max_in_flight + reserve).div_ceil(2);
                if in_flight > limit {
                    return Err(AdmissionError::TooManyOfKey(limit));
                }
                if operation.is_rated {
                    let counted = limits.count(key.created_at, urgent, Instant::now());
                    counted.map_err(AdmissionError::RateLimited)?;
                }
                Some(of_key)
            }
        };
        let noted = match operation.effect {
            Effect::Read => noted,
            Effect::Change | Effect::Removal => noted.of_change(),
        };
        Ok(Admission { noted, operation, caller, urgency, in_flight })
    }

    /// The caller that presents this. A wrong key is an error, also where callers without a key are
    /// allowed.
    fn caller(&self, presented: Presented<'_>) -> Result<Caller, AdmissionError> {
        let Presented { key, certificate } = presented;
        let authenticated = match key {
            Ok(None) if certificate.is_empty() => Err(AuthenticationError::Nothing),
            Ok(key) => self.authenticate(key, certificate),
            Err(error) => Err(error),
        };
        match authenticated {
            Err(AuthenticationError::Nothing) if !self.requires_keys() => Ok(Caller::Anonymous),
            authenticated => authenticated.map_err(|error| {
                let key = key.ok().flatten();
                let id = key.and_then(|key| SecretText::id_in(SecretKind::Key, key));
                let id = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
                AdmissionError::Unauthenticated { error, key_id: id.map(Into::into) }
            }),
        }
    }

    /// The session of an admitted caller whose message has arrived, and names these companies.
    ///
    /// # Errors
    /// The caller's key was revoked meanwhile, or is not valid for one of the companies.
    pub fn authorize(
        &self,
        caller: Caller,
        companies: &Companies<'_>,
    ) -> Result<Session<'_>, AccessError> {
        if !self.is_current(&caller) {
            return Err(AccessError::Revoked(caller));
        }
        if !companies.are_reached_by(&caller) {
            return Err(AccessError::Company(caller));
        }
        Ok(self.session(caller))
    }
}
