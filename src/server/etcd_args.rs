//! EtcdArgs: the flags that name the etcd of a cluster of replicas.
//!
//! Not here: the flags of a replica itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::StartupError;
use crate::store::replicated::etcd::{Client, EtcdUrl, Login, Settings, TlsFiles};

/// The etcd of a cluster.
#[derive(Clone, Debug, Args)]
pub struct EtcdArgs {
    /// The etcd that has the log of the replicas: etcd://HOST:PORT,HOST:PORT/PREFIX, or etcds:// for
    /// TLS. `?compact=off` is for an etcd that others use, too; `?quota=8GiB` names its quota, if that
    /// is not 2 GiB.
    #[arg(long, env = "SCOPEGATE_REPLICATE", value_name = "URL")]
    pub replicate: Option<EtcdUrl>,

    /// The CAs that may have signed etcd's certificate, in PEM. By default those of this machine.
    #[arg(long, env = "SCOPEGATE_REPLICATE_CA", value_name = "FILE")]
    pub replicate_ca: Option<PathBuf>,

    /// The client certificate for etcd, in PEM.
    #[arg(long, env = "SCOPEGATE_REPLICATE_CERT", value_name = "FILE", requires = "replicate_key")]
    pub replicate_cert: Option<PathBuf>,

    /// The private key of --replicate-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_REPLICATE_KEY", value_name = "FILE", requires = "replicate_cert")]
    pub replicate_key: Option<PathBuf>,

    /// The user of etcd.
    #[arg(
        long,
        env = "SCOPEGATE_REPLICATE_USER",
        value_name = "NAME",
        requires = "replicate_password_file"
    )]
    pub replicate_user: Option<String>,

    /// The file whose first line is the password of --replicate-user. It is read each time that the
    /// password is needed.
    #[arg(
        long,
        env = "SCOPEGATE_REPLICATE_PASSWORD_FILE",
        value_name = "FILE",
        requires = "replicate_user"
    )]
    pub replicate_password_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// The settings of a client; None without --replicate.
    #[must_use]
    pub fn settings(&self) -> Option<Settings> {
        let tls = TlsFiles {
            ca: self.replicate_ca.clone(),
            identity: self.replicate_cert.clone().zip(self.replicate_key.clone()),
        };
        let login = self.replicate_user.clone().zip(self.replicate_password_file.clone());
        let login = login.map(|(user, password_file)| Login { user, password_file });
        Some(Settings {
            url: self.replicate.clone()?,
            tls,
            login,
            cluster_id: None,
            errors: Arc::default(),
        })
    }

    /// A client for a command that needs etcd.
    ///
    /// # Errors
    /// --replicate is missing, or a file does not fit it.
    pub fn client(&self) -> Result<Client, StartupError> {
        let missing =
            || "give the etcd of the cluster: --replicate etcd://HOST:PORT,…/PREFIX".to_owned();
        let settings = self.settings().ok_or_else(missing);
        settings.and_then(Client::new).map_err(StartupError::Config)
    }
}
