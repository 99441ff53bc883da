//! Socket file: the file of a Unix socket, from the start of its server to its end.
//!
//! INVARIANT (one server for each path): a server holds a lock on `PATH.lock` for as long as it lives, and
//! changes nothing at the path without it. The kernel frees the lock of a server that was killed, so what is
//! left of that server is replaced. The lock file stays: to remove it would let two servers lock two files
//! of that name.
//!
//! The socket is bound and gets its mode under another name, and only then accepts connections. Clients find
//! it at its path with its mode, or they find the one before.
//!
//! Not here: which addresses there are; see [`super::listen_socket`].

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use super::error::TransportError;
use super::listen_socket::BACKLOG;

/// What the path of the lock file, and that of a socket that has no mode yet, end with.
const LOCK: &str = ".lock";
const NEW: &str = ".new";

/// How long a path may be, in bytes. `sun_path` has a byte more than the first number, for the end, and the
/// socket is bound under the longer name.
pub(crate) const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 } - NEW.len();

/// The file of a Unix socket. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// What tells a file from another one that has its path later. The system can use the number of a file
/// again, but not at the same time.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    made: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        // Nothing writes to a socket's file, so this is when it was made.
        let made = (file.mtime(), file.mtime_nsec());
        Self { device: file.dev(), inode: file.ino(), made }
    }
}

impl SocketFile {
    /// Makes a socket at a path, with these permissions, in the place of one that no server has.
    ///
    /// # Errors
    /// Another process serves it, the path has a file that is not a socket, or the system refused.
    pub(crate) fn bind(path: &Path, mode: u32) -> Result<(Self, UnixListener), TransportError> {
        let cannot = |error: io::Error| {
            TransportError::of_system(&format!("cannot listen on unix:{}", path.display()), &error)
        };
        let lock = lock(path)?;
        check_unused(path)?;
        let new = with_end(path, NEW);
        // A server that was killed here has left it.
        if fs::symlink_metadata(&new).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(&new).map_err(cannot)?;
        }
        let socket = bind_closed(&new).map_err(cannot)?;
        let placed = fs::set_permissions(&new, Permissions::from_mode(mode))
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| fs::symlink_metadata(&new))
            .and_then(|file| fs::rename(&new, path).map(|()| Identity::of(&file)));
        match placed {
            Ok(identity) => {
                Ok((Self { path: path.to_owned(), identity, _lock: lock }, socket.into()))
            }
            Err(error) => {
                fs::remove_file(&new).ok();
                Err(cannot(error))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).map(|file| Identity::of(&file));
        if found.is_ok_and(|found| found == self.identity) {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes a socket at a path that accepts no connection yet. Its file has the mode that the system gave it,
/// which may let everybody connect, and a connection from then would stay open.
fn bind_closed(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// A path with more at its end.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut longer = OsString::from(path);
    longer.push(end);
    longer.into()
}

/// Takes the lock of a path.
fn lock(path: &Path) -> Result<File, TransportError> {
    let at = with_end(path, LOCK);
    let cannot = |error: io::Error| {
        TransportError::of_system(&format!("cannot lock {}", at.display()), &error)
    };
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&at, flags, Mode::RUSR | Mode::WUSR);
    let file = File::from(file.map_err(|error| cannot(error.into()))?);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

fn in_use(path: &Path) -> TransportError {
    TransportError::Config(format!(
        "cannot listen on unix:{}: another process serves it; stop that one, or give another path",
        path.display()
    ))
}

/// Refuses a path that has a file which is not a socket, or a socket that somebody serves. Other programs
/// do not take the lock, so the socket itself is asked.
fn check_unused(path: &Path) -> Result<(), TransportError> {
    let refused = |why: &str| {
        let shown = path.display();
        Err(TransportError::Config(format!("cannot listen on unix:{shown}: {why}")))
    };
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return refused("the path has a file that is not a socket; give another path"),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return refused(&error.kind().to_string()),
    }
    // It must not wait: the queue of the other server may be full.
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    match connected {
        Ok(()) => Err(in_use(path)),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(()),
            ErrorKind::WouldBlock => Err(in_use(path)),
            kind => refused(&format!(
                "the path has a socket, and it is not known whether another process serves it ({kind}); \
                 remove it if none does"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        (dir, path)
    }

    fn refused(path: &Path) -> String {
        SocketFile::bind(path, 0o660).map(drop).expect_err("refused").to_string()
    }

    #[test]
    fn of_servers_that_start_at_once_exactly_one_gets_the_socket() {
        const SERVERS: usize = 8;
        for round in 0..50 {
            let (_dir, path) = dir();
            if round % 2 == 1 {
                // What a server that was killed has left.
                drop(UnixListener::bind(&path).expect("bound"));
            }
            let (start, end) = (Barrier::new(SERVERS), Barrier::new(SERVERS));
            let won: usize = thread::scope(|scope| {
                let servers: Vec<_> = (0..SERVERS)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            let bound = SocketFile::bind(&path, 0o660);
                            // None ends before all have tried.
                            end.wait();
                            usize::from(bound.is_ok())
                        })
                    })
                    .collect();
                servers.into_iter().map(|server| server.join().expect("ended")).sum()
            });
            assert_eq!(won, 1, "round {round}");
        }
    }

    #[test]
    fn server_that_holds_the_lock_is_refused_before_it_has_a_socket() {
        let (_dir, path) = dir();
        let held = lock(&path).expect("locked");
        assert!(refused(&path).contains("another process serves it"));
        assert!(!path.exists());
        drop(held);
        SocketFile::bind(&path, 0o660).expect("bound");
    }

    #[test]
    fn socket_of_another_program_is_refused_while_it_is_served() {
        let (_dir, path) = dir();
        let other = UnixListener::bind(&path).expect("bound");
        assert!(refused(&path).contains("another process serves it"));
        UnixStream::connect(&path).expect("still its own");
        drop(other);
        SocketFile::bind(&path, 0o660).expect("replaced");
    }

    #[test]
    fn file_that_is_not_a_socket_is_kept() {
        let (dir, path) = dir();
        fs::write(&path, "text").expect("written");
        assert!(refused(&path).contains("not a socket"));
        let link = dir.path().join("link");
        let target = dir.path().join("target");
        drop(UnixListener::bind(&target).expect("bound"));
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(refused(&link).contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "text");
    }

    #[test]
    fn link_in_the_place_of_the_lock_is_not_followed() {
        let (dir, path) = dir();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink(&target, with_end(&path, LOCK)).expect("linked");
        assert!(refused(&path).contains("cannot lock"));
        assert!(!target.exists());
    }

    #[test]
    fn no_client_connects_before_the_socket_has_its_mode() {
        let (_dir, path) = dir();
        let socket = bind_closed(&path).expect("bound");
        let refused = UnixStream::connect(&path).expect_err("it does not listen");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        socket.listen(BACKLOG).expect("open");
        UnixStream::connect(&path).expect("it listens");
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let (_dir, path) = dir();
        let (file, _listener) = SocketFile::bind(&path, 0o600).expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert!(!with_end(&path, NEW).exists());
        drop(file);
        assert!(!path.exists());
        let (file, _listener) = SocketFile::bind(&path, 0o600).expect("bound");
        fs::remove_file(&path).expect("removed");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(file);
        assert!(path.exists(), "it is of another program");
    }

    #[test]
    fn longest_path_can_be_bound() {
        let (dir, _) = dir();
        let name = "x".repeat(MAX_PATH - dir.path().as_os_str().len() - 1);
        let path = dir.path().join(name);
        assert_eq!(path.as_os_str().len(), MAX_PATH);
        let (_file, _listener) = SocketFile::bind(&path, 0o600).expect("bound");
        UnixStream::connect(&path).expect("served");
    }
}
