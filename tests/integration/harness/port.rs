//! Ports that tests listen on, each given once.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The ports are below those that the kernel gives to connections, so that no connection of another test
/// takes one before its server does, or while its server is away.
const PORTS: Range<u16> = 12_000..32_000;
/// A process takes so many ports at once.
const BLOCK: u16 = 200;

/// The ports that this process has not given yet, and what shows other processes that a block is taken:
/// its first port, for UDP, which nothing else uses.
struct Ports {
    left: Range<u16>,
    taken: Vec<UdpSocket>,
}

/// An address on which nothing listens. No other caller gets it, in this process or in another one that
/// runs: a server may leave its port, and come back to it.
pub fn free_address() -> String {
    static PORTS_LEFT: Mutex<Ports> = Mutex::new(Ports { left: 0..0, taken: Vec::new() });
    let mut ports = PORTS_LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if ports.left.is_empty() {
            let (first, mark) = take_block();
            ports.left = first..first + BLOCK;
            ports.taken.push(mark);
        }
        let free = ports.left.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        if let Some(port) = free {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// The first port of a block that no process has, and its mark.
fn take_block() -> (u16, UdpSocket) {
    let blocks = u32::from((PORTS.end - PORTS.start) / BLOCK);
    // What a process leaves is not taken up by the next one at once: a peer may still look for it.
    let begin = std::process::id() % blocks;
    let firsts = (0..blocks).map(|step| {
        let block = u16::try_from((begin + step) % blocks).expect("few blocks");
        PORTS.start + block * BLOCK
    });
    let mut free = firsts
        .filter_map(|first| UdpSocket::bind(("127.0.0.1", first)).ok().map(|mark| (first, mark)));
    free.next().expect("a block of ports that no process has")
}

#[test]
fn no_port_is_given_twice() {
    let given: Vec<_> = (0..u32::from(BLOCK) + 10).map(|_| free_address()).collect();
    let mut once = given.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), given.len());
    let (first, _mark) = take_block();
    let port = |address: &String| address.rsplit(':').next().expect("a port").parse::<u16>();
    let block = first..first + BLOCK;
    assert!(!given.iter().any(|address| block.contains(&port(address).expect("a number"))));
}
