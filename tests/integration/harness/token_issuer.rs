//! An issuer of tokens whose keys are in the catalog, for tests that need no server of keys.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::jwt::{Signer, key_set};

/// The issuer's name.
pub const NAME: &str = "https://id.example.org/";
/// The `aud` of the audience `api`.
pub const AUDIENCE: &str = "https://api.example.org";

/// An issuer that may speak for the company `acme`.
pub struct TokenIssuer(pub Signer);

impl TokenIssuer {
    pub fn new() -> Self {
        Self(Signer::new("ES256", "key-1"))
    }

    /// Writes a catalog with this issuer.
    pub fn catalog(&self, dir: &Path) -> PathBuf {
        let catalog = json!({
            "audiences": { "api": { "aud": [AUDIENCE] } },
            "scopes": { "users:read": { "title": "Read users" }, "users:write": {} },
            "roles": { "reader": { "scopes": { "users:read": "all" } } },
            "endpoints": [
                { "method": "GET", "path": "/users", "audience": "api", "scopes": ["users:read"] },
            ],
            "issuers": { NAME: {
                "jwks": serde_json::from_str::<Value>(&key_set([&self.0])).expect("a set"),
                "algorithms": ["ES256"],
                "company": { "claim": "tid" },
                "companies": ["acme"],
            } },
        });
        let file = dir.join("catalog.yaml");
        std::fs::write(&file, catalog.to_string()).expect("written");
        file
    }

    /// A token of the credential `hr` of `acme` with these changes of its claims.
    pub fn token(&self, changes: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let mut claims = json!({
            "iss": NAME, "aud": AUDIENCE, "iat": now - 60, "exp": now + 3600, "jti": "token-7f",
            "tid": "acme", "client_id": "hr", "sub": "hr", "scope": "users:read users:write",
        });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        self.0.token(&claims)
    }
}
