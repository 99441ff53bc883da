//! Real servers: a process of the built binary, a port, a directory.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use scopegate_client::{Caller, Client};
use tempfile::TempDir;

/// The built binary.
pub fn scopegate() -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built =
        ["debug", "release"].map(|how| here.join("../../target").join(how).join("scopegate"));
    let said = std::env::var_os("SCOPEGATE_BIN").map(PathBuf::from);
    let binary = said.or_else(|| built.into_iter().find(|path| path.exists()));
    let binary = binary.expect("no server to test against: `cargo build` in the repository's root makes one, or say where it is with SCOPEGATE_BIN");
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCOPEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// A served store.
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts a server on a port of its own, and waits until it serves.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", dir, args)
    }

    pub fn start_at(address: &str, dir: &Path, args: &[&str]) -> Self {
        let mut child = scopegate()
            .args(["serve", "--worker-threads", "1", "--log-format", "json", "--listen", address])
            .arg("--data-dir")
            .arg(dir)
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let log = BufReader::new(child.stderr.take().expect("a log"));
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let address = line.split_once(r#""address":""#);
                if let Some(address) = address.and_then(|(_, rest)| rest.split('"').next()) {
                    send.send(address.to_owned()).ok();
                }
            }
        });
        let address = receive.recv_timeout(Duration::from_secs(60)).expect("the server serves");
        Self { child, address }
    }

    /// Starts a server at an address that nobody else is given while no server has it: below the
    /// ports that the system hands out.
    pub fn start_to_stay(dir: &Path, args: &[&str]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("a port");
        let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::SeqCst));
        let free = ports.take(1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        Self::start_at(&format!("127.0.0.1:{}", free.expect("a free port")), dir, args)
    }

    pub fn url(&self) -> String {
        match self.address.starts_with("unix:") {
            true => self.address.clone(),
            false => format!("http://{}", self.address),
        }
    }

    /// Kills the process as the kernel would.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        assert!(self.child.wait().expect("gone").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The demo in a directory of its own, and a client of it that is patient: the machine may be busy.
pub fn demo() -> (TempDir, Server, Client) {
    let dir = TempDir::new().expect("a directory");
    let server = Server::start(dir.path(), &["--demo"]);
    let client = patient(&server.url());
    (dir, server, client)
}

pub fn patient(url: &str) -> Client {
    Client::builder(url).deadline(Duration::from_secs(30)).connect().expect("a client")
}

/// The demo's two.
pub fn analytics() -> Caller {
    Caller::new("demo", "analytics")
}

pub fn hr_sync() -> Caller {
    Caller::new("demo", "hr-sync")
}

/// A catalog of this repository.
pub fn catalog(name: &str) -> String {
    format!("{}/../../catalogs/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command of the binary against a server.
pub fn run(server: &Server, args: &[&str]) -> String {
    let out = scopegate().args(args).args(["--endpoint", &server.url()]).output().expect("it runs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}
