//! Trace: what a process asked of its files, in order, as `strace` saw it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing that a process did to a file, as far as it matters after a power cut.
#[derive(Debug)]
pub enum Op {
    /// Opened a file that may be new, and may be emptied.
    Create {
        path: PathBuf,
        empty: bool,
    },
    /// Wrote at a place.
    Write {
        path: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    /// Cut or stretched.
    Resize {
        path: PathBuf,
        length: u64,
    },
    /// Asked that all of it be on the disk.
    Sync {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
}

/// The trace has each op twice: when it was begun, and when the kernel said that it was done.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    Begun(usize),
    Done(usize),
}

pub struct Trace {
    pub ops: Vec<Op>,
    pub moments: Vec<Moment>,
}

const CALLS: &str = "trace=openat,pwrite64,write,writev,pwritev,fsync,fdatasync,sync_file_range,\
    ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,mmap,copy_file_range";

/// Whether this machine can record.
pub fn at_hand() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-y", "-xx", "--seccomp-bpf", "-e", "trace=fsync", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A command that runs another one and records it.
pub fn recorder(log: &Path) -> Vec<String> {
    let log = log.to_str().expect("a path");
    let options = ["-f", "-y", "-xx", "-a", "1", "-s", "4000000", "--seccomp-bpf", "-e", CALLS];
    [&["strace"], &options[..], &["-o", log]].concat().into_iter().map(str::to_owned).collect()
}

/// Reads what was recorded below this directory.
pub fn read(log: &str, root: &Path) -> Trace {
    let mut reader = Reader {
        root,
        trace: Trace { ops: vec![], moments: vec![] },
        places: HashMap::new(),
        open: HashMap::new(),
    };
    for line in log.lines() {
        let (thread, line) = line.split_once(' ').expect("a thread");
        reader.line(thread, line.trim_start());
    }
    reader.trace
}

struct Reader<'a> {
    root: &'a Path,
    trace: Trace,
    /// Where the next `write` of a descriptor goes.
    places: HashMap<String, u64>,
    /// What a thread has begun.
    open: HashMap<String, (String, Option<usize>)>,
}

impl Reader<'_> {
    fn line(&mut self, thread: &str, line: &str) {
        if line.starts_with("+++") || line.starts_with("---") {
            return;
        }
        if let Some(rest) = line.strip_prefix("<... ") {
            let Some((begun, op)) = self.open.remove(thread) else { return };
            let end = rest.split_once("resumed>").expect("the end of a call").1;
            self.done(&format!("{begun}{end}"), op);
        } else if let Some(begun) = line.strip_suffix("<unfinished ...>") {
            let op = self.begun(begun);
            self.open.insert(thread.to_owned(), (begun.to_owned(), op));
        } else {
            let op = self.begun(line);
            self.done(line, op);
        }
    }

    /// The op of a call, if it is one and below the root.
    fn begun(&mut self, line: &str) -> Option<usize> {
        let (call, rest) = line.split_once('(').expect("a call");
        let arguments = rest.split_once(") = ").map_or(rest, |(arguments, _)| arguments);
        let arguments: Vec<_> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
        let strings: Vec<_> = arguments.iter().filter(|a| a.starts_with('"')).collect();
        let named = |n: usize| PathBuf::from(String::from_utf8(unhex(strings[n])).expect("a path"));
        let op = match call {
            "openat" if line.contains("O_CREAT") || line.contains("O_TRUNC") => {
                Op::Create { path: named(0), empty: line.contains("O_TRUNC") }
            }
            "pwrite64" => Op::Write {
                path: described(arguments[0])?,
                at: arguments[3].parse().expect("a place"),
                bytes: unhex(arguments[1]),
            },
            "write" => {
                let path = described(arguments[0])?;
                let bytes = unhex(arguments[1]);
                let place = self.places.entry(descriptor(arguments[0])).or_default();
                let at = *place;
                *place += bytes.len() as u64;
                Op::Write { path, at, bytes }
            }
            "ftruncate" => Op::Resize {
                path: described(arguments[0])?,
                length: arguments[1].parse().expect("a length"),
            },
            // `sync_file_range` promises nothing: neither the file's size nor the disk's cache.
            "fsync" | "fdatasync" => Op::Sync { path: described(arguments[0])? },
            "rename" | "renameat" | "renameat2" => Op::Rename { from: named(0), to: named(1) },
            "unlink" | "unlinkat" => Op::Unlink { path: named(0) },
            "mkdir" | "mkdirat" => Op::MakeDir { path: named(0) },
            // Blocks behind the end: neither the file's bytes nor its length are others.
            "fallocate" if line.contains("KEEP_SIZE") => return None,
            "mmap" | "writev" | "pwritev" | "fallocate" | "copy_file_range" => {
                let path = arguments.iter().find_map(|argument| described(argument))?;
                let written = call != "mmap" || line.contains("MAP_SHARED");
                assert!(
                    !written || !path.starts_with(self.root),
                    "not understood: {call} {path:?}"
                );
                return None;
            }
            _ => return None,
        };
        let path = match &op {
            Op::Create { path, .. }
            | Op::Write { path, .. }
            | Op::Resize { path, .. }
            | Op::Sync { path }
            | Op::Rename { from: path, .. }
            | Op::Unlink { path }
            | Op::MakeDir { path } => path,
        };
        if !path.starts_with(self.root) {
            return None;
        }
        self.trace.ops.push(op);
        let op = self.trace.ops.len() - 1;
        self.trace.moments.push(Moment::Begun(op));
        Some(op)
    }

    fn done(&mut self, line: &str, op: Option<usize>) {
        let Some((_, result)) = line.rsplit_once(") = ") else { return };
        if line.starts_with("openat(") {
            self.places.insert(descriptor(result), 0);
        }
        if let Some(op) = op
            && !result.starts_with('-')
        {
            self.trace.moments.push(Moment::Done(op));
        }
    }
}

/// `5<\x2f\x64\x62>`: the number, by which offsets are kept.
fn descriptor(argument: &str) -> String {
    argument.split('<').next().unwrap_or_default().trim().to_owned()
}

/// `5<\x2f\x64\x62>`: the path.
fn described(argument: &str) -> Option<PathBuf> {
    let path = argument.split_once('<')?.1.split_once('>')?.0;
    if !path.starts_with("\\x2f") {
        return None;
    }
    Some(PathBuf::from(String::from_utf8(unhex(path)).expect("a path")))
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(!text.ends_with("..."), "the record is cut short");
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
    let text = text.trim_matches('"').as_bytes();
    text.chunks_exact(4).map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}
