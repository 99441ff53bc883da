//! EtcdUrl: which etcd, and which of its keys are ours.
//!
//! Not here: the files of TLS, and the user; both come with flags of their own.

use std::collections::HashSet;
use std::str::FromStr;

use http::uri::Authority;

/// etcd's own quota of its database, if its operator sets none.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// `etcd://HOST:PORT,…/PREFIX`, or `etcds://` for TLS. Parameters: `compact=off` if others keep
/// something in the same etcd, and `quota=8GiB` if the quota of its database is not 2 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUrl {
    /// The nodes, each `HOST:PORT`.
    pub nodes: Vec<String>,
    /// Whether the connections use TLS.
    pub is_tls: bool,
    /// The prefix of all keys, without a slash at its end.
    pub prefix: String,
    /// Whether etcd's history may be compacted.
    pub compacts: bool,
    /// The quota of etcd's database, in bytes.
    pub quota: u64,
}

impl FromStr for EtcdUrl {
    type Err = String;

    /// The error is a sentence. It does not repeat a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write `etcd://HOST:PORT,HOST:PORT/PREFIX`";
        let (is_tls, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => {
                return Err(format!(
                    "the URL begins neither with etcd:// nor with etcds://; {form}"
                ));
            }
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.contains('@') {
            return Err(
                "the URL has a user name; give the user and the password by flags".to_owned()
            );
        }
        let nodes: Vec<_> = hosts.split(',').map(node).collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = nodes.iter().find(|node| !seen.insert(*node)) {
            return Err(format!("the URL names `{twice}` twice; name each node once"));
        }
        let is_part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && part.chars().all(allowed)
        };
        if prefix.is_empty() {
            return Err(format!("the URL has no prefix; {form}"));
        }
        if !prefix.split('/').all(is_part) {
            return Err(format!(
                "the prefix `{prefix}` is not valid; use letters, digits, `.`, `_` and `-`, with one `/` between parts"
            ));
        }
        let mut url =
            Self { nodes, is_tls, prefix: prefix.to_owned(), compacts: true, quota: DEFAULT_QUOTA };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            url.set(parameter)?;
        }
        Ok(url)
    }
}

impl EtcdUrl {
    fn set(&mut self, parameter: &str) -> Result<(), String> {
        match parameter.split_once('=') {
            Some(("compact", "off")) => self.compacts = false,
            Some(("compact", "on")) => self.compacts = true,
            Some(("compact", value)) => {
                return Err(format!("`compact={value}` is not valid; write `compact=off`"));
            }
            Some(("quota", value)) => {
                self.quota = bytes(value).ok_or_else(|| {
                    format!("`quota={value}` is not valid; write a size such as `quota=2GiB`")
                })?;
            }
            _ => {
                return Err(format!(
                    "the URL has the unknown parameter `{parameter}`; there are `compact` and `quota`"
                ));
            }
        }
        Ok(())
    }
}

/// A node, if it has a host and a port.
fn node(text: &str) -> Result<String, String> {
    let problem =
        || format!("the node `{text}` is not valid; write `HOST:PORT`, such as `etcd-0:2379`");
    let authority: Authority = text.parse().map_err(|_| problem())?;
    let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(problem)?;
    let host = Some(authority.host()).filter(|host| !host.is_empty()).ok_or_else(problem)?;
    Ok(format!("{host}:{port}"))
}

/// A size in MiB or GiB.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix("GiB") {
        Some(number) => (number, 1 << 30),
        None => (text.strip_suffix("MiB")?, 1 << 20),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|number| is_number && *number > 0)?;
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_names_nodes_prefix_and_parameters() {
        let url: EtcdUrl = "etcd://a:2379,[::1]:2380,10.0.0.1:1/scopegate".parse().expect("valid");
        assert_eq!(url.nodes, ["a:2379", "[::1]:2380", "10.0.0.1:1"]);
        assert_eq!((url.is_tls, url.compacts, url.quota), (false, true, 2 << 30));
        let url: EtcdUrl =
            "etcds://a:1/eu/scopegate-1?compact=off&quota=512MiB".parse().expect("valid");
        assert_eq!((url.prefix.as_str(), url.is_tls), ("eu/scopegate-1", true));
        assert_eq!((url.compacts, url.quota), (false, 512 << 20));
    }

    #[test]
    fn malformed_url_is_rejected_with_one_sentence() {
        for (url, part) in [
            ("", "begins neither"),
            ("http://a:1/p", "begins neither"),
            ("etcd:///p", "the node `` is not valid"),
            ("etcd://a:1,/p", "the node `` is not valid"),
            ("etcd://a/p", "the node `a` is not valid"),
            ("etcd://a:0/p", "the node `a:0` is not valid"),
            ("etcd://:1/p", "the node `:1` is not valid"),
            ("etcd://a:70000/p", "the node `a:70000` is not valid"),
            ("etcd://a b:1/p", "the node `a b:1` is not valid"),
            ("etcd://a:1,b:2,a:1/p", "names `a:1` twice"),
            ("etcd://root:secret@a:1/p", "has a user name"),
            ("etcd://a:1", "has no prefix"),
            ("etcd://a:1/", "has no prefix"),
            ("etcd://a:1/p/", "the prefix `p/` is not valid"),
            ("etcd://a:1//p", "the prefix `/p` is not valid"),
            ("etcd://a:1/p%20", "the prefix `p%20` is not valid"),
            ("etcd://a:1/p?compact=no", "`compact=no` is not valid"),
            ("etcd://a:1/p?quota=2", "`quota=2` is not valid"),
            ("etcd://a:1/p?quota=+2GiB", "`quota=+2GiB` is not valid"),
            ("etcd://a:1/p?quota=0GiB", "`quota=0GiB` is not valid"),
            ("etcd://a:1/p?quota=99999999999999GiB", "is not valid"),
            ("etcd://a:1/p?lease=4s", "the unknown parameter `lease=4s`"),
        ] {
            let error = url.parse::<EtcdUrl>().expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
