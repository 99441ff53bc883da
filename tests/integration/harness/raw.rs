//! A raw HTTP/2 connection: it sends exactly the bytes that a test gives it, well formed or not.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;

use super::{Server, scopes_of};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long anything may take that must happen: far longer than it takes.
pub const WAIT_LIMIT: Duration = Duration::from_secs(30);

// Frames, flags and errors by RFC 9113 sections 6 and 7.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ENHANCE_YOUR_CALM: u8 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

/// The header block of a check.
pub fn block() -> Vec<u8> {
    block_to("/scopegate.v1.AuthorizationService/Check", &[])
}

/// The header block of a gRPC call of this path, with more headers.
pub fn block_to(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    literal_headers(&[&first, more].concat())
}

/// A header block without tables and codes (RFC 7541 section 6.2.2). Texts have fewer than 127
/// bytes.
pub fn literal_headers(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            let length = u8::try_from(text.len()).expect("short");
            assert!(length < 127, "longer lengths have more bytes");
            block.push(length);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A whole check.
pub fn check(stream: u32) -> Vec<u8> {
    let message = prost::Message::encode_to_vec(&scopes_of("demo", "hr-sync", &["users:write"]));
    let mut content = vec![0];
    content.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    content.extend(message);
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block());
    bytes.extend(frame(DATA, END_STREAM, stream, &content));
    bytes
}

/// A connection that sends what it is told to.
pub struct Raw<S = TcpStream>(pub S);

impl Raw {
    /// Connects, without a word.
    pub fn silent(server: &Server) -> Self {
        let tcp = TcpStream::connect(&server.address).expect("accepted");
        tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
        tcp.set_nodelay(true).expect("set");
        SockRef::from(&tcp).set_recv_buffer_size(1 << 16).expect("set");
        Self(tcp)
    }

    /// Connects, and begins HTTP/2 with settings.
    pub fn begun(server: &Server, settings: &[u8]) -> Self {
        Self::silent(server).begin(settings)
    }
}

impl Raw<UnixStream> {
    /// Connects to a Unix socket, and begins HTTP/2 with settings.
    pub fn begun_at(path: &Path, settings: &[u8]) -> Self {
        let unix = UnixStream::connect(path).expect("accepted");
        unix.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
        Self(unix).begin(settings)
    }
}

impl<S: Read + Write> Raw<S> {
    fn begin(mut self, settings: &[u8]) -> Self {
        self.send(PREFACE);
        self.send(&frame(SETTINGS, 0, 0, settings));
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("sent");
    }

    /// The next frame: its kind, flags and content. None at the end.
    pub fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut header = [0; 9];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("kept open"),
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut content = vec![0; length as usize];
        self.0.read_exact(&mut content).ok()?;
        Some((header[3], header[4], content))
    }

    /// Waits for the end, and returns why if that was said.
    pub fn end(mut self) -> Option<u8> {
        let mut why = None;
        while let Some((kind, _, content)) = self.next() {
            if kind == GOAWAY {
                why = Some(content[7]);
            }
        }
        why
    }

    /// Panics unless the connection is answered.
    pub fn assert_open(&mut self) {
        self.send(&frame(PING, 0, 0, &[7; 8]));
        loop {
            let (kind, flags, content) = self.next().expect("open");
            if kind == PING && flags == ACK && content == [7; 8] {
                return;
            }
        }
    }
}
