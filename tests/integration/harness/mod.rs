//! Real servers for the tests: a process of the built binary, a port, a directory, clients.

pub mod authzen;
pub mod bytes_codec;
pub mod ca;
pub mod channel;
pub mod cluster;
pub mod etcd;
pub mod fake_clock;
pub mod hang;
pub mod http;
pub mod jwks;
pub mod jwt;
pub mod port;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod replica;
pub mod terminal;
pub mod token_issuer;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scopegate::proto::authorization_service_client::AuthorizationServiceClient;
use scopegate::proto::catalog_service_client::CatalogServiceClient;
use scopegate::proto::change_service_client::ChangeServiceClient;
use scopegate::proto::directory_service_client::DirectoryServiceClient;
use scopegate::proto::key_service_client::KeyServiceClient;
use scopegate::proto::*;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use channel::endpoint;
pub use port::free_address;

/// The built binary.
pub fn scopegate() -> Command {
    hang::watch_tests();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopegate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCOPEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// A catalog of this repository.
pub fn catalog(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("catalogs").join(name)
}

/// The first key of a store, with which an operator begins.
pub fn bootstrap(dir: &Path) -> String {
    let made = scopegate().args(["keys", "bootstrap", "--data-dir"]).arg(dir).output();
    let made = made.expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("a text").trim().to_owned()
}

/// Sends a process a signal by name.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// Stops all threads of a process until `CONT`. The kernel delivers the signal to one thread, which
/// stops the others when it runs next: until then they go on.
pub fn pause(pid: u32) {
    signal(pid, "STOP");
    let threads = format!("/proc/{pid}/task");
    let is_stopped = |thread: &Path| {
        let status = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        // The name, in parentheses, may have any character.
        status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    let deadline = Instant::now() + raw::WAIT_LIMIT;
    loop {
        let mut threads = fs::read_dir(&threads).expect("a process");
        if threads.all(|thread| is_stopped(&thread.expect("a thread").path())) {
            return;
        }
        assert!(Instant::now() < deadline, "the process does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A served store.
pub struct Server {
    child: Child,
    pub address: String,
    /// The address for API clients, or empty.
    pub oauth: String,
    /// The address of the HTTP API, when it serves.
    http: Arc<OnceLock<String>>,
    log: hang::Log,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a port of its own, and waits until it serves.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_by(scopegate(), dir, args)
    }

    /// Starts a server by a command that runs the binary with the arguments that follow, and waits until it
    /// serves.
    pub fn start_by(command: Command, dir: &Path, args: &[&str]) -> Self {
        let (mut server, serving) = Self::launch(command, dir, args);
        let addresses = serving.recv_timeout(Duration::from_secs(60));
        let addresses = addresses.unwrap_or_else(|error| panic!("{error}: {:#?}", server.log()));
        (server.address, server.oauth) = addresses;
        server
    }

    /// Starts a server by a command, and waits for nothing. It tells its addresses when it serves: that for
    /// calls, and that for API clients.
    pub fn launch(
        mut command: Command,
        dir: &Path,
        args: &[&str],
    ) -> (Self, mpsc::Receiver<(String, String)>) {
        let mut child = command
            .args(["serve", "--log-format", "json", "--data-dir"])
            .arg(dir)
            .args(if args.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let log = BufReader::new(child.stderr.take().expect("a log"));
        let (send, receive) = mpsc::channel();
        let lines = hang::Log::default();
        hang::show_log(child.id(), &lines);
        let kept = Arc::clone(&lines);
        let http = Arc::<OnceLock<String>>::default();
        let kept_http = Arc::clone(&http);
        let reader = std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                kept.lock().expect("a log").push(line);
                if event["message"] == "serving" {
                    let address = event["address"].as_str().expect("an address").to_owned();
                    if let Some(address) = event["http_address"].as_str() {
                        kept_http.set(address.to_owned()).ok();
                    }
                    let oauth = event["oauth_address"].as_str().unwrap_or_default().to_owned();
                    send.send((address, oauth)).ok();
                }
            }
        });
        let (address, oauth, reader) = (String::new(), String::new(), Some(reader));
        (Self { child, address, oauth, http, log: lines, reader }, receive)
    }

    /// Starts a server with a catalog of this repository.
    pub fn with_catalog(dir: &Path, name: &str) -> Self {
        Self::start(dir, &["--catalog", catalog(name).to_str().expect("a path")])
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the HTTP API.
    pub fn http(&self) -> &str {
        self.http.get().expect("--http")
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("a log").clone()
    }

    /// How many lines of the log so far have this in them.
    pub fn logged(&self, part: &str) -> usize {
        self.logged_all(&[part])
    }

    /// How many lines of the log so far have all of these in them.
    pub fn logged_all(&self, parts: &[&str]) -> usize {
        let log = self.log.lock().expect("a log");
        log.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process as the kernel would: nothing of it runs any more.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        hang::wait(&mut self.child);
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Stops all of its threads until `CONT`.
    pub fn pause(&self) {
        pause(self.pid());
    }

    /// Asks it to end, and waits.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        hang::wait(&mut self.child)
    }

    /// Asks it to end, and waits: how it ended, and all of its log.
    pub fn end(self) -> (ExitStatus, Vec<String>) {
        self.signal("TERM");
        self.ended()
    }

    /// Whether the process has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a process").is_none()
    }

    /// Waits until it ends by itself: how, and all of its log.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = hang::wait(&mut self.child);
        self.reader.take().expect("a reader").join().expect("read");
        (status, std::mem::take(&mut *self.log.lock().expect("a log")))
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A connection on which every call presents this key, if any.
pub type Wire = InterceptedService<Channel, BearerInterceptor>;

#[derive(Clone)]
pub struct BearerInterceptor(pub Option<MetadataValue<Ascii>>);

impl Interceptor for BearerInterceptor {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// A client that knows the contract's names and nothing else.
#[derive(Clone)]
pub struct Client {
    pub authorization: AuthorizationServiceClient<Wire>,
    pub directory: DirectoryServiceClient<Wire>,
    pub catalog: CatalogServiceClient<Wire>,
    pub changes: ChangeServiceClient<Wire>,
    pub keys: KeyServiceClient<Wire>,
}

pub fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        Self::connect_as(url, None).await
    }

    /// A client that presents this key.
    pub async fn connect_as(url: &str, key: Option<&str>) -> Self {
        Self::over_as(endpoint(url).connect().await.expect("a connection"), key)
    }

    pub fn over(channel: Channel) -> Self {
        Self::over_as(channel, None)
    }

    pub fn over_as(channel: Channel, key: Option<&str>) -> Self {
        let key = key.map(|key| format!("Bearer {key}").parse().expect("a header"));
        let channel = InterceptedService::new(channel, BearerInterceptor(key));
        let limit = 64 << 20;
        Self {
            authorization: AuthorizationServiceClient::new(channel.clone())
                .max_decoding_message_size(limit),
            directory: DirectoryServiceClient::new(channel.clone())
                .max_decoding_message_size(limit),
            catalog: CatalogServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            changes: ChangeServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            keys: KeyServiceClient::new(channel),
        }
    }

    pub async fn ask(&self, request: CheckRequest) -> Result<CheckResponse, Status> {
        self.authorization.clone().check(request).await.map(tonic::Response::into_inner)
    }

    pub async fn check(&self, company: &str, credential: &str, scopes: &[&str]) -> CheckResponse {
        self.ask(scopes_of(company, credential, scopes)).await.expect("an answer")
    }

    /// The reason of the answer, which is `Allowed` if it is.
    pub async fn reason(&self, company: &str, credential: &str, scopes: &[&str]) -> Reason {
        let answer = self.check(company, credential, scopes).await;
        assert_eq!(answer.decision() == Decision::Allowed, answer.reason() == Reason::Allowed);
        assert_ne!(answer.decision(), Decision::Unspecified);
        answer.reason()
    }

    pub async fn create_company(&self, company: &str, scopes: Option<&[&str]>) -> Company {
        let request = CreateCompanyRequest {
            company_id: company.to_owned(),
            scopes: scopes.map(|names| Scopes { names: owned(names) }),
            ..CreateCompanyRequest::default()
        };
        let done = self.directory.clone().create_company(request).await.expect("created");
        done.into_inner().company.expect("a company")
    }

    pub async fn create_credential(
        &self,
        company: &str,
        credential: &str,
        scopes: &[&str],
    ) -> Credential {
        let request = CreateCredentialRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
            label: format!("The label of {credential}"),
            scopes: owned(scopes),
            ..CreateCredentialRequest::default()
        };
        let done = self.directory.clone().create_credential(request).await.expect("created");
        done.into_inner().credential.expect("a credential")
    }

    pub async fn grant(
        &self,
        company: &str,
        credential: &str,
        scopes: &[&str],
    ) -> Result<GrantScopesResponse, Status> {
        let request = GrantScopesRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
            scopes: owned(scopes),
            ..GrantScopesRequest::default()
        };
        self.authorization.clone().grant_scopes(request).await.map(tonic::Response::into_inner)
    }

    pub async fn restrict(&self, company: &str, scopes: &[&str]) -> RestrictCompanyScopesResponse {
        let request = RestrictCompanyScopesRequest {
            company_id: company.to_owned(),
            scopes: owned(scopes),
            acknowledge_impact: true,
            ..RestrictCompanyScopesRequest::default()
        };
        self.try_restrict(request).await.expect("restricted")
    }

    pub async fn try_restrict(
        &self,
        request: RestrictCompanyScopesRequest,
    ) -> Result<RestrictCompanyScopesResponse, Status> {
        let done = self.authorization.clone().restrict_company_scopes(request).await;
        done.map(tonic::Response::into_inner)
    }

    pub async fn add_scopes(&self, company: &str, scopes: &[&str]) -> AddCompanyScopesResponse {
        let request = AddCompanyScopesRequest {
            company_id: company.to_owned(),
            scopes: owned(scopes),
            ..AddCompanyScopesRequest::default()
        };
        self.authorization.clone().add_company_scopes(request).await.expect("added").into_inner()
    }

    pub async fn credential(&self, company: &str, credential: &str) -> Result<Credential, Status> {
        let request = GetCredentialRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
        };
        let read = self.directory.clone().get_credential(request).await?;
        Ok(read.into_inner().credential.expect("a credential"))
    }
}

impl Client {
    pub async fn put_user(&self, company: &str, user: &str, roles: &[&str]) -> User {
        let request = PutUserRequest {
            company_id: company.to_owned(),
            user_id: user.to_owned(),
            roles: owned(roles),
            ..PutUserRequest::default()
        };
        let done = self.directory.clone().put_user(request).await.expect("put");
        done.into_inner().user.expect("a user")
    }

    /// What a user's consent actually gave.
    pub async fn consent(
        &self,
        company: &str,
        credential: &str,
        user: &str,
        scopes: &[&str],
    ) -> Vec<String> {
        let request = PutConsentRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
            user_id: user.to_owned(),
            scopes: owned(scopes),
            ..PutConsentRequest::default()
        };
        let done = self.directory.clone().put_consent(request).await.expect("put");
        done.into_inner().consent.expect("a consent").scopes
    }

    /// The answer to a check, which a batch, an explanation and the list agree with (D22).
    pub async fn agreed(&self, request: CheckRequest) -> CheckResponse {
        let answer = self.ask(request.clone()).await.expect("an answer");
        let batch = BatchCheckRequest { checks: vec![request.clone(), request.clone()] };
        let batch = self.authorization.clone().batch_check(batch).await.expect("an answer");
        for result in batch.into_inner().results {
            assert_eq!(result, answer, "the batch");
        }
        let explain = ExplainCheckRequest { check: Some(request.clone()) };
        let explain = self.authorization.clone().explain_check(explain).await.expect("an answer");
        let explain = explain.into_inner();
        assert_eq!(explain.decision.as_ref(), Some(&answer), "the explanation");
        for scope in &explain.scopes {
            let passed = scope.layers.iter().all(|layer| layer.passed);
            assert_eq!(!passed, answer.missing_scopes.contains(&scope.scope), "{scope:?}");
        }
        let first = explain.scopes.iter().flat_map(|s| &s.layers).filter(|l| !l.passed);
        if let Some(first) = first.map(|layer| layer.reason).min() {
            assert_eq!(first, answer.reason, "the least reason of all layers");
        }
        if let [scope] = request.scopes.as_slice()
            && request.resource_owner_id.is_empty()
        {
            let list = ListEffectiveScopesRequest {
                bearer_token: request.bearer_token.clone(),
                authorization: request.authorization.clone(),
                company_id: request.company_id.clone(),
                credential_id: request.credential_id.clone(),
                audience: request.audience.clone(),
                token: request.token.clone(),
                user_id: request.user_id.clone(),
            };
            let list = self.authorization.clone().list_effective_scopes(list).await;
            let list = list.expect("a list").into_inner().scopes;
            let listed = list.iter().find(|effective| effective.scope == *scope);
            assert_eq!(listed.is_some(), answer.decision() == Decision::Allowed, "the list");
            assert!(listed.is_none_or(|effective| effective.reach == answer.reach));
        }
        answer
    }
}

pub fn scopes_of(company: &str, credential: &str, scopes: &[&str]) -> CheckRequest {
    CheckRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        scopes: owned(scopes),
        ..CheckRequest::default()
    }
}

pub fn endpoint_of(company: &str, credential: &str, method: &str, path: &str) -> CheckRequest {
    CheckRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        endpoint: Some(Endpoint { method: method.to_owned(), path: path.to_owned() }),
        ..CheckRequest::default()
    }
}

/// The error's code and its details, which every error of the service has.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, ErrorDetails) {
    let status = answer.expect_err("a refusal");
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, "scopegate");
    assert!(!info.reason.is_empty());
    (status.code(), details)
}

/// The fields that a malformed request is told of.
pub fn fields(details: &ErrorDetails) -> Vec<&str> {
    let bad = details.bad_request().expect("a BadRequest");
    bad.field_violations.iter().map(|v| v.field.as_str()).collect()
}
