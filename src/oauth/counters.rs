//! Counters: the requests of API clients, and the tokens that they asked for.
//!
//! Not here: the names of the metrics; see `transport::collector`.

use super::refusal::ErrorCode;
use super::route::Endpoint;
use crate::metrics::Counter;

/// The statuses of responses.
const STATUSES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 429, 500, 503];

/// The grant of a token request, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// `client_credentials`.
    ClientCredentials,
    /// Token exchange.
    TokenExchange,
    /// `authorization_code`.
    AuthorizationCode,
    /// Another, or a request that was refused before its grant was read.
    Other,
}

impl Grant {
    const ALL: [Self; 4] =
        [Self::ClientCredentials, Self::TokenExchange, Self::AuthorizationCode, Self::Other];

    /// Its name in metrics and in the decision log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "token_exchange",
            Self::AuthorizationCode => "authorization_code",
            Self::Other => "other",
        }
    }
}

/// The counters of the authorization server.
#[derive(Default)]
pub(crate) struct OauthCounters {
    /// By endpoint, all other paths last, and by status.
    requests: [[Counter; STATUSES.len()]; Endpoint::ALL.len() + 1],
    issued: [Counter; Grant::ALL.len()],
    refused: [[Counter; ErrorCode::ALL.len()]; Grant::ALL.len()],
}

impl OauthCounters {
    /// Counts a response.
    pub(super) fn answered(&self, endpoint: Option<Endpoint>, status: u16) {
        let index = endpoint.map_or(Endpoint::ALL.len(), |endpoint| endpoint as usize);
        let status = STATUSES.iter().position(|known| *known == status);
        let of_status = status.and_then(|status| self.requests.get(index)?.get(status));
        if let Some(counter) = of_status {
            counter.inc();
        }
    }

    /// Counts a token that was issued.
    pub(super) fn issued(&self, grant: Grant) {
        if let Some(counter) = self.issued.get(grant as usize) {
            counter.inc();
        }
    }

    /// Counts a token that was refused.
    pub(super) fn refused(&self, grant: Grant, code: ErrorCode) {
        let of_grant = self.refused.get(grant as usize);
        if let Some(counter) = of_grant.and_then(|codes| codes.get(code as usize)) {
            counter.inc();
        }
    }

    /// The numbers of responses, by endpoint and status, without zeros.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        let names = Endpoint::ALL.map(Endpoint::name).into_iter().chain(["other"]);
        names.zip(&self.requests).flat_map(|(name, counters)| {
            let counts = STATUSES.into_iter().zip(counters);
            let counts = counts.map(move |(status, count)| (name, status, count.read()));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }

    /// The numbers of tokens that were issued, by grant.
    pub(crate) fn tokens_issued(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let grants = Grant::ALL.into_iter().filter(|grant| *grant != Grant::Other);
        grants.zip(&self.issued).map(|(grant, count)| (grant.name(), count.read()))
    }

    /// The numbers of tokens that were refused, by grant and error code, without zeros.
    pub(crate) fn tokens_refused(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Grant::ALL.into_iter().zip(&self.refused).flat_map(|(grant, counters)| {
            // Several codes have one word.
            let mut by_word = std::collections::BTreeMap::<_, u64>::new();
            for (code, count) in ErrorCode::ALL.into_iter().zip(counters) {
                *by_word.entry(code.word()).or_default() += count.read();
            }
            let counts = by_word.into_iter().filter(|(_, count)| *count > 0);
            counts.map(move |(word, count)| (grant.name(), word, count))
        })
    }
}
