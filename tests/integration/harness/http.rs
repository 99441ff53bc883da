//! A small HTTP/1.1 client: it sends exactly the request that a test gives it, on a connection of its
//! own, and reads the response to the end.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::raw::WAIT_LIMIT;

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Reply {
    /// Reads one from all that a server sent.
    pub fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no response: `{text}`"));
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        assert!(!is_chunked, "responses have a length");
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header, which is there once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.head.lines().filter_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        let first = all.next();
        assert!(all.next().is_none(), "{name} is there twice");
        first
    }

    /// The body, which is JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The error code of the body.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Connects to an address.
pub fn connect(address: &str) -> TcpStream {
    try_connect(address).expect("accepted")
}

fn try_connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(WAIT_LIMIT))?;
    Ok(tcp)
}

/// Sends a request, and reads the response. The head needs neither a host nor a length.
pub fn send(address: &str, line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    try_send(address, line, headers, body).expect("a response")
}

fn try_send(address: &str, line: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Reply> {
    let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut tcp = try_connect(address)?;
    tcp.write_all(request.as_bytes())?;
    let mut response = String::new();
    tcp.read_to_string(&mut response)?;
    if response.is_empty() {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(Reply::read(&response))
    }
}

pub fn get(address: &str, path: &str) -> Reply {
    send(address, &format!("GET {path}"), &[], "")
}

/// Posts a form, with an `Authorization` header if it is not empty.
pub fn post(address: &str, path: &str, authorization: &str, form: &str) -> Reply {
    try_post(address, path, authorization, form).expect("a response")
}

/// As [`post`], to a server that may be killed.
pub fn try_post(address: &str, path: &str, authorization: &str, form: &str) -> io::Result<Reply> {
    let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
    if !authorization.is_empty() {
        headers.push(("Authorization", authorization));
    }
    try_send(address, &format!("POST {path}"), &headers, form)
}

pub fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}
