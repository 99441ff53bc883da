//! Login: the user of this client, and the token that etcd gives for its password.
//!
//! A token ends when it was not used for some minutes, and when its node restarts. The password is
//! read from its file each time that a token is needed.

use std::path::PathBuf;

use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::proto::AuthenticateRequest;
use super::proto::auth_client::AuthClient;
use super::{Client, EtcdError};

/// A user of etcd.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The file whose first line is the password.
    pub password_file: PathBuf,
}

/// What calls carry. Empty without a login, and if etcd has no users.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    /// A request that carries this token.
    pub(super) fn on<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// Whether etcd asks for another token. It has not carried the call out.
pub(super) fn is_token_refused(status: &tonic::Status) -> bool {
    // There is no user name in a call without a token. It has none if etcd had no users before.
    let refusals = ["invalid auth token", "revision of auth store is old", "user name is empty"];
    matches!(EtcdError::of(status), EtcdError::Refused(why) if refusals.contains(&why.as_str()))
}

/// The current token. Calls that need a new one at the same time wait for one and the same.
pub(super) struct TokenSlot {
    login: Option<Login>,
    current: Mutex<Option<Token>>,
}

impl TokenSlot {
    pub(super) fn new(login: Option<Login>) -> Self {
        Self { login, current: Mutex::default() }
    }

    pub(super) fn has_login(&self) -> bool {
        self.login.is_some()
    }

    /// The current token, or a new one if the current one is that which etcd refused.
    pub(super) async fn token(
        &self,
        client: &Client,
        channel: &Channel,
        refused: Option<Token>,
    ) -> Result<Token, EtcdError> {
        let Some(login) = &self.login else { return Ok(Token(None)) };
        let mut current = self.current.lock().await;
        if let Some(token) = &*current
            && refused.as_ref() != Some(token)
        {
            return Ok(token.clone());
        }
        let token = login.authenticate(client, channel.clone()).await?;
        *current = Some(token.clone());
        Ok(token)
    }
}

impl Login {
    async fn authenticate(&self, client: &Client, channel: Channel) -> Result<Token, EtcdError> {
        let path = self.password_file.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let password = read.unwrap_or_else(|error| Err(error.into())).map_err(|error| {
            let file = self.password_file.display();
            EtcdError::NoAnswer(format!("--replicate-password-file {file}: {error}"))
        })?;
        let password = password.lines().next().unwrap_or_default().to_owned();
        let request = AuthenticateRequest { name: self.user.clone(), password };
        let response = match AuthClient::new(channel).authenticate(request).await {
            Ok(response) => client.check_cluster(response.into_inner())?,
            Err(status) if is_without_users(&status) => return Ok(Token(None)),
            Err(status) => return Err(EtcdError::of(&status)),
        };
        let token = response.token.parse();
        let unusable =
            |_| EtcdError::NoAnswer("its token has characters that are not valid".into());
        Ok(Token(Some(token.map_err(unusable)?)))
    }
}

/// Whether etcd asks for no token.
fn is_without_users(status: &tonic::Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status.message() == "etcdserver: authentication is not enabled"
}
