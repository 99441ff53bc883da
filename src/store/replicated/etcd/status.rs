//! NodeStatus: what a node says about itself, and whether its version can be relied on.
//!
//! Not here: what follows from the size of its database.

use super::proto::StatusResponse;

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The version of its program, such as `3.4.23`.
    pub version: String,
    /// Whether it is the leader.
    pub is_leader: bool,
    /// The size of its database file, in bytes.
    pub db_size: u64,
    /// The part of it that holds data.
    pub db_size_in_use: u64,
}

impl From<StatusResponse> for NodeStatus {
    fn from(response: StatusResponse) -> Self {
        let member = response.header.map_or(0, |header| header.member_id);
        Self {
            is_leader: member != 0 && member == response.leader,
            version: response.version,
            db_size: response.db_size.try_into().unwrap_or_default(),
            db_size_in_use: response.db_size_in_use.try_into().unwrap_or_default(),
        }
    }
}

/// Why a version of etcd must not be used, in one sentence. None: it can be used.
///
/// Nodes of 3.5.0 to 3.5.5 can become inconsistent with the others, and so can those before 3.4.22.
#[must_use]
pub fn unsupported_version(version: &str) -> Option<String> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u32>> = release.split('.').map(|part| part.parse().ok()).collect();
    let is_usable = match parts.as_deref() {
        Some([3, 4, patch]) => *patch >= 22,
        Some([3, 5, patch]) => *patch >= 6,
        Some([3, minor, _]) => *minor > 5,
        Some([major, _, _]) => *major > 3,
        _ => false,
    };
    (!is_usable).then(|| {
        format!("etcd `{version}` is not supported; use 3.4.22 or a later 3.4, or 3.5.6 or later")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_data_inconsistency_are_refused() {
        for usable in ["3.4.22", "3.4.40", "3.5.6", "3.5.21", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
            assert_eq!(unsupported_version(usable), None, "{usable}");
        }
        for refused in ["3.3.27", "3.4.21", "3.5.0", "3.5.5", "3.5.0-rc.0", "2.3.8", "3.4", "", "x"]
        {
            assert!(unsupported_version(refused).is_some(), "{refused}");
        }
    }
}
