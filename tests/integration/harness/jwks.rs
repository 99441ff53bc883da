//! An issuer's server of keys, whose answers the test scripts.

use super::hang;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server does with the next requests.
#[derive(Clone)]
pub enum Answer {
    /// It sends these bytes, and ends the connection.
    Bytes(Vec<u8>),
    /// It sends these bytes, and then nothing until the client has gone.
    Hang(Vec<u8>),
    /// It sends these bytes again and again.
    Flood(Vec<u8>),
    /// It reads no request, and sends nothing.
    Silence,
}

impl Answer {
    /// A response with a body, whose length it says.
    pub fn response(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
        Self::Bytes([head.as_bytes(), body.as_bytes()].concat())
    }

    /// A document of keys.
    pub fn keys(body: &str) -> Self {
        Self::response("200 OK", "content-type: application/jwk-set+json\r\n", body)
    }
}

/// A CA of its own.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The TLS of a server with these names, until the first of January of a year.
    pub fn tls(&self, names: &[&str], until: i32) -> Arc<ServerConfig> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("signed").pem();
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a pair");
        Arc::new(config)
    }
}

/// The server, until it is dropped.
pub struct JwksServer {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// The heads of the requests.
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl JwksServer {
    pub fn start(answer: Answer) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), answer, None)
    }

    pub fn start_at(at: SocketAddr, answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(at).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::new(Mutex::new(vec![])));
        let ended = Arc::new(AtomicBool::new(false));
        let (own_answer, own_requests) = (Arc::clone(&answer), Arc::clone(&requests));
        let own_ended = Arc::clone(&ended);
        let accepting = hang::background(move || {
            for connection in listener.incoming() {
                if own_ended.load(Ordering::SeqCst) {
                    return;
                }
                let connection = connection.expect("a connection");
                let (answer, tls) = (own_answer.lock().expect("it").clone(), tls.clone());
                let requests = Arc::clone(&own_requests);
                // A client may break off at any time.
                hang::background(move || serve(connection, tls, answer, &requests).ok());
            }
        });
        Self { address, answer, requests, ended, accepting: Some(accepting) }
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().expect("an answer") = answer;
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        self.accepting.take().map(JoinHandle::join);
    }
}

fn serve(
    mut connection: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    answer: Answer,
    requests: &Mutex<Vec<String>>,
) -> io::Result<()> {
    if matches!(answer, Answer::Silence) {
        return io::copy(&mut connection, &mut io::sink()).map(drop);
    }
    match tls {
        None => respond(&mut connection, answer, requests),
        Some(config) => {
            let session = ServerConnection::new(config).expect("a session");
            let mut stream = StreamOwned::new(session, connection);
            respond(&mut stream, answer, requests)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

fn respond(
    stream: &mut (impl Read + Write),
    answer: Answer,
    requests: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        // The begin of TLS, which is no text.
        if !byte[0].is_ascii() || byte[0] == 22 {
            return Err(io::Error::other("no HTTP"));
        }
        head.extend(byte);
    }
    requests.lock().expect("requests").push(String::from_utf8(head).expect("a text"));
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()
        }
        Answer::Hang(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            io::copy(stream, &mut io::sink()).map(drop)
        }
        Answer::Flood(bytes) => loop {
            stream.write_all(&bytes)?;
        },
        Answer::Silence => Ok(()),
    }
}
