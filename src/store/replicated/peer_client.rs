//! PeerClient: the calls of another replica: its snapshot, and the sums of its facts.
//!
//! The URL in the record of the replica decides about TLS. A replica that is asked and stops to answer
//! is given up, so that another one can be asked.
//!
//! Not here: which replica is asked, and what is done with the answer; see `store::installation` and
//! `fact_comparison`.

use std::io::{self, Read};
use std::time::Duration;

use prost::bytes::{Buf, Bytes};
use tokio::runtime::{Builder, Runtime};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::etcd::{TlsFiles, cause};
use super::member_record::MemberRecord;
use super::proto::peer_service_client::PeerServiceClient;
use super::proto::{FactSumsRequest, FactSumsResponse, SnapshotRequest, SnapshotResponse};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the next part may take. The first one waits for the writer of the other replica.
const PART_TIMEOUT: Duration = Duration::from_secs(20);
/// The limit of a part in bytes: more than the largest record of a backup.
const MAX_PART_BYTES: usize = 17 << 20;
/// The flags of the files of TLS. A replica presents the certificate of its own server.
const FLAGS: [&str; 3] = ["--peer-ca", "--tls-cert", "--tls-key"];

/// The snapshot of another replica, as it arrives. It is read and dropped on a thread that may
/// block.
pub struct SnapshotReader {
    runtime: Runtime,
    parts: Streaming<SnapshotResponse>,
    /// What has arrived and was not read yet.
    unread: Bytes,
}

/// Begins to fetch the snapshot of the replica with this record. It blocks.
///
/// # Errors
/// The replica cannot be reached, or it gives no snapshot.
pub fn fetch(record: &MemberRecord, tls: &TlsFiles) -> io::Result<SnapshotReader> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let parts = runtime.block_on(in_time(async {
        let client = connect(record, tls).await?;
        let mut client = client.max_decoding_message_size(MAX_PART_BYTES);
        client.snapshot(authenticated(record, SnapshotRequest {})?).await.map_err(refused)
    }))?;
    Ok(SnapshotReader { runtime, parts: parts.into_inner(), unread: Bytes::new() })
}

/// Asks the replica with this record for the sums of its facts.
///
/// # Errors
/// The replica cannot be reached, or it does not answer.
pub async fn fact_sums(record: &MemberRecord, tls: &TlsFiles) -> io::Result<FactSumsResponse> {
    in_time(async {
        let mut client = connect(record, tls).await?;
        let request = authenticated(record, FactSumsRequest {})?;
        Ok(client.fact_sums(request).await.map_err(refused)?.into_inner())
    })
    .await
}

async fn connect(record: &MemberRecord, tls: &TlsFiles) -> io::Result<PeerServiceClient<Channel>> {
    let endpoint = endpoint(&record.advertise, tls).map_err(io::Error::other)?;
    let channel = endpoint.connect().await;
    let channel =
        channel.map_err(|error| io::Error::other(cause("it cannot be reached", Some(&error))))?;
    Ok(PeerServiceClient::new(channel))
}

/// A request with the token of the replica that is asked.
fn authenticated<T>(record: &MemberRecord, message: T) -> io::Result<Request<T>> {
    let token = AsciiMetadataValue::try_from(format!("Bearer {}", record.peer_token.text()));
    let mut token = token.map_err(io::Error::other)?;
    token.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token);
    Ok(request)
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() && !buffer.is_empty() {
            let next = async { self.parts.message().await.map_err(refused) };
            match self.runtime.block_on(in_time(next))? {
                Some(part) => self.unread = part.data.into(),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.unread.len());
        self.unread.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let answered = tokio::time::timeout(PART_TIMEOUT, answer).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refused(status: Status) -> io::Error {
    io::Error::other(cause(status.message(), std::error::Error::source(&status)))
}

fn endpoint(url: &str, tls: &TlsFiles) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| format!("the URL `{url}` of the replica is not valid: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT);
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint),
        Some("https") => endpoint
            .tls_config(tls.read(FLAGS)?)
            .map_err(|error| cause("the files of TLS cannot be used", Some(&error))),
        _ => Err(format!("the URL `{url}` of the replica is not valid: begin it with https://")),
    }
}
