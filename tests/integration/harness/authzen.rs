//! A server with the AuthZEN API, and a client of it.

use std::path::Path;

use scopegate::proto::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Reply, send};
use super::{Client, Server, bootstrap, owned};

/// One audience that is the default, one that must be named, and one that needs a user.
pub const CATALOG: &str = r#"
name: platform
audiences:
  public: { title: Public API }
  people: { title: For people, user: required }
  hooks:  { title: Webhooks, token: required }
scopes:
  users:read:    { title: Read users, audiences: [public, people] }
  users:write:   { title: Write users, audiences: [public, people] }
  records:read:  { title: Read records, audiences: [public] }
  records:write: { title: Write records, audiences: [public] }
  records:trash: { title: Trash records, audiences: [public] }
  archive:write: { title: Write archived records, audiences: [public] }
  hooks:         { title: Webhooks, audiences: [hooks] }
roles:
  owner:  { scopes: { users:read: all, users:write: own, records:read: all, records:write: own } }
  reader: { scopes: { users:read: all } }
endpoints:
  - { method: GET, path: "/users", audience: public, scopes: ["users:read"] }
  - { method: GET, path: "/users/{userId}", audience: public, scopes: ["users:read"] }
  - { method: PUT, path: "/users/{userId}", audience: public, scopes: ["users:write"] }
  - { method: HEAD, path: "/status", audience: public, scopes: none }
  - { method: GET, path: "/status", audience: public, scopes: ["users:read"] }
  - { method: GRPC, path: "/records.v1.Records/Get", audience: public, scopes: ["records:read"] }
resources:
  record:
    audience: public
    actions:
      read:   [{ scopes: ["records:read"] }]
      write:  [{ when: { resource.status: archived }, scopes: ["archive:write"] }, { scopes: ["records:write"] }]
      delete: [{ when: { action.soft: true }, scopes: ["records:trash"] }]
    known: { record-1: { status: active }, record-2: { status: archived } }
  note:
    audience: public
    actions:
      read: [{ when: { resource.level: 1 }, scopes: ["users:read"] }]
"#;

/// A served platform. The company `acme` has the credential `hr` with some scopes and the user `ann`, who is
/// an owner; `other` has the same. A key of each role is there.
pub struct Platform {
    pub server: Server,
    pub client: Client,
    /// The operator's key.
    pub key: String,
    _dir: TempDir,
}

/// The scopes of the credential `hr`.
pub const GRANTED: [&str; 4] = ["users:read", "users:write", "records:read", "records:write"];

impl Platform {
    pub async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = bootstrap(&dir.path().join("data"));
        let server = serve(dir.path(), args);
        let client = Client::connect_as(&server.url(), Some(&key)).await;
        for company in ["acme", "other"] {
            client.create_company(company, None).await;
            client.create_credential(company, "hr", &GRANTED).await;
            client.create_credential(company, "idle", &[]).await;
            client.put_user(company, "ann", &["owner"]).await;
            client.put_user(company, "bob", &["reader"]).await;
        }
        Self { server, client, key, _dir: dir }
    }

    /// A new key with this role, for these companies.
    pub async fn key(&self, role: Role, companies: &[&str]) -> String {
        let request = CreateKeyRequest {
            name: "someone".to_owned(),
            roles: vec![role.into()],
            company_ids: owned(companies),
            ..CreateKeyRequest::default()
        };
        self.client.keys.clone().create_key(request).await.expect("made").into_inner().secret
    }

    /// Posts a body with the operator's key.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_as(&self.key, path, &body.to_string())
    }

    pub fn post_as(&self, key: &str, path: &str, body: &str) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [("Content-Type", "application/json"), ("Authorization", &*bearer)];
        send(self.server.http(), &format!("POST {path}"), &headers, body)
    }

    /// The answer to a request that is answered.
    pub fn answer(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{body} {reply:?}");
        reply.json()
    }

    /// The decision on a question.
    pub fn decide(&self, question: &Value) -> Value {
        self.answer("/access/v1/evaluation", question)
    }

    /// All results of a search, page by page, each with this limit.
    pub fn search(&self, path: &str, body: &Value, limit: u64) -> Vec<Value> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let mut body = body.clone();
            body["page"] = json!({"limit": limit, "token": token});
            let answer = self.answer(path, &body);
            let results = answer["results"].as_array().expect("results").clone();
            let limit = if limit == 0 { 100 } else { limit };
            assert!(results.len() as u64 <= limit);
            all.extend(results);
            token = answer["page"]["next_token"].as_str().expect("a token").to_owned();
            if token.is_empty() {
                return all;
            }
        }
    }
}

pub fn serve(dir: &Path, args: &[&str]) -> Server {
    let catalog = dir.join("catalog.yaml");
    std::fs::write(&catalog, CATALOG).expect("written");
    let catalog = catalog.to_str().expect("a path");
    let fixed = ["--catalog", catalog, "--http", "127.0.0.1:0"];
    Server::start(&dir.join("data"), &[&fixed[..], args].concat())
}

/// A question, with the default audience.
pub fn question(subject: (&str, &str), action: &str, resource: (&str, &str)) -> Value {
    json!({
        "subject": {"type": subject.0, "id": subject.1},
        "action": {"name": action},
        "resource": {"type": resource.0, "id": resource.1},
        "context": {"audience": "public"},
    })
}

/// The same with more in it.
pub fn with(mut question: Value, path: &str, value: Value) -> Value {
    let mut place = &mut question;
    for name in path.split('.') {
        place = &mut place[name];
    }
    *place = value;
    question
}
