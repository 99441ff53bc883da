//! Presented client: what a request presents to prove which API client sent it (T30, T31).
//!
//! Not here: whether it is right; see [`crate::authority::client_proof`].

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::form::Form;
use super::refusal::Refusal;
use crate::policy::client_credential::ClientCredential;
use crate::policy::reason::Reason;

/// What a request presents to prove which API client sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PresentedClient {
    /// A secret, by HTTP Basic or in the form.
    Secret(ClientCredential),
    /// No secret.
    Nothing,
}

/// The parameters of the proof, for the endpoint's list of known ones.
pub(super) const CLIENT_ID: &str = "client_id";
pub(super) const CLIENT_SECRET: &str = "client_secret";

impl PresentedClient {
    /// Reads what a request presents.
    ///
    /// # Errors
    /// The request proves the client in two ways.
    pub(super) fn of(headers: &HeaderMap, form: &Form) -> Result<Self, Refusal> {
        const TWO: Refusal = Refusal::request("The client proves itself in two ways. Choose one.");
        let (id, secret) = (form.get(CLIENT_ID), form.get(CLIENT_SECRET));
        let mut all = headers.get_all(AUTHORIZATION).iter();
        match (all.next(), all.next()) {
            (Some(_), Some(_)) => Err(TWO),
            (Some(_), None) if secret.is_some() => Err(TWO),
            (Some(header), None) => {
                let credential =
                    ClientCredential::authorization(header.to_str().unwrap_or_default());
                match &credential {
                    ClientCredential::Secret { name: Some(name), .. } => match id {
                        Some(id) if *id != **name => Err(TWO),
                        _ => Ok(Self::Secret(credential)),
                    },
                    // Only Basic is a proof here.
                    _ => Ok(Self::Secret(ClientCredential::Unusable(
                        Reason::CredentialUnknown.into(),
                    ))),
                }
            }
            (None, _) => match (id, secret) {
                (Some(id), Some(secret)) => Ok(Self::Secret(ClientCredential::client_secret(
                    id.to_owned(),
                    secret.to_owned(),
                ))),
                (None, Some(_)) => Err(Refusal::request("The parameter client_id is missing.")),
                (_, None) => Ok(Self::Nothing),
            },
        }
    }
}
