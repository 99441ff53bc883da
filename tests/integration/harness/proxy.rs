//! A TCP proxy that loses, holds or delays what passes through it.

use super::hang;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::free_address;

/// A proxy in front of one address. Its connections end with it, and its port with the process.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From clients to the server.
    Requests,
    /// From the server to clients.
    Answers,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    /// Whether bytes wait: requests, and answers.
    held: [bool; 2],
    delay: Duration,
    connections: Vec<TcpStream>,
    accepted: usize,
    /// How many bytes of requests came.
    requested: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Proxy {
    /// A proxy on a port of its own, through which everything passes.
    pub fn start(server: &str) -> Self {
        let (address, server) = (free_address(), server.to_owned());
        let listener = TcpListener::bind(&address).expect("a port");
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        hang::background(move || {
            for client in listener.incoming().map_while(Result::ok) {
                of_thread.accept(client, &server);
            }
        });
        Self { address, shared }
    }

    /// Ends all connections, and every new one at once, until `mend`.
    pub fn cut(&self) {
        self.change(|state| {
            state.is_cut = true;
            for connection in state.connections.drain(..) {
                connection.shutdown(Shutdown::Both).ok();
            }
        });
    }

    /// Keeps what clients send until `mend`.
    pub fn hold_requests(&self) {
        self.change(|state| state.held[Way::Requests as usize] = true);
    }

    /// Keeps what the server sends until `mend`.
    pub fn hold_answers(&self) {
        self.change(|state| state.held[Way::Answers as usize] = true);
    }

    /// Lets every piece pass only after this time.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Everything passes again, also what was held.
    pub fn mend(&self) {
        self.change(|state| {
            state.is_cut = false;
            state.held = [false; 2];
            state.delay = Duration::ZERO;
        });
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// How many bytes clients have sent so far.
    pub fn requested(&self) -> usize {
        self.shared.lock().requested
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, client: TcpStream, server: &str) {
        let mut state = self.lock();
        state.accepted += 1;
        if state.is_cut {
            return;
        }
        let Ok(server) = TcpStream::connect(server) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).ok();
            state.connections.extend(stream.try_clone());
        }
        let copies = [client.try_clone().expect("a socket"), server.try_clone().expect("a socket")];
        let [client_copy, server_copy] = copies;
        for (from, to, way) in
            [(client, server, Way::Requests), (server_copy, client_copy, Way::Answers)]
        {
            let shared = Arc::clone(self);
            hang::background(move || shared.copy(from, to, way));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let mut state = self.lock();
            if way == Way::Requests {
                state.requested += length;
            }
            while state.held[way as usize] && !state.is_cut {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (is_cut, delay) = (state.is_cut, state.delay);
            drop(state);
            if is_cut {
                break;
            }
            std::thread::sleep(delay);
            if to.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
