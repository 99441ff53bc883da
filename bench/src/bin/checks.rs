//! Checks: one check after another of credentials drawn at random, over a few connections with
//! many streams each, as fast as answers come.
//!
//! h2load sends one body; this sends another each time, and must not cost more than it. So it
//! speaks just as much HTTP/2 as it needs: fixed header bytes, a body made in place, and of what
//! comes back only the frames that say that a call ended, and the answer's first field. All that
//! has come is read before all that is due is sent, in one write.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: checks --address HOST:PORT --credentials N --companies N --scope NAME \
                     --keys uniform|zipf --connections N --streams N --milliseconds N --seed N";

/// Types and flags of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// The connection's window is opened this far, and again when half of it is used.
const WINDOW: u32 = 1 << 30;
/// `decision: DECISION_ALLOWED`, the first field of an answer.
const ALLOWED: [u8; 2] = [8, 1];

/// How credentials are drawn.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    /// Each as likely as any other.
    Uniform,
    /// The n-th as likely as 1/n.
    Zipf,
}

/// What to do, as asked.
#[derive(Clone)]
struct Plan {
    address: String,
    credentials: u64,
    companies: u64,
    scope: String,
    keys: Keys,
    /// From the credential of one rank to that of the next: it shares no factor with their number,
    /// and so leads to each once.
    step: u64,
    streams: u32,
    time: Duration,
}

/// What a connection did.
#[derive(Default)]
struct Done {
    checks: u64,
    allowed: u64,
    microseconds: Vec<u32>,
}

/// A sequence of numbers without a pattern that matters here (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to 1, without 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A credential's number.
    fn draw(&mut self, plan: &Plan) -> u64 {
        let count = plan.credentials;
        if plan.keys == Keys::Uniform {
            return self.next() % count;
        }
        // The density 1/x from 1 to count + 1, whose whole part is Zipf's law of exponent 1.
        let rank = ((count + 1) as f64).powf(self.fraction()) as u64 - 1;
        // Those that are asked for most are no neighbours.
        (u128::from(rank.min(count - 1)) * u128::from(plan.step) % u128::from(count)) as u64
    }
}

/// See [`Plan::step`].
fn step(count: u64) -> u64 {
    let mut step = 2_654_435_761 % count.max(2);
    while greatest_common_divisor(step, count) != 1 {
        step += 1;
    }
    step
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn frame(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// A literal field that is not remembered (RFC 7541 section 6.2.2); names and values are short.
fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        out.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("a short text"));
        out.extend(text.as_bytes());
    }
}

/// The header block of every request.
fn headers(address: &str) -> Vec<u8> {
    let mut out = vec![0x83, 0x86]; // :method POST, :scheme http
    literal(&mut out, ":path", "/scopegate.v1.AuthorizationService/Check");
    literal(&mut out, ":authority", address);
    literal(&mut out, "content-type", "application/grpc");
    literal(&mut out, "te", "trailers");
    out
}

/// One connection.
struct Lane {
    plan: Plan,
    headers: Vec<u8>,
    dice: Dice,
    out: Vec<u8>,
    next: u32,
    /// When the stream's request was written, by its number among those of its connection.
    since: Vec<Instant>,
    done: Done,
}

impl Lane {
    /// Writes a request, on a stream of its own.
    fn ask(&mut self) {
        let stream = self.next;
        self.next += 2;
        frame(&mut self.out, self.headers.len(), HEADERS, END_HEADERS, stream);
        self.out.extend_from_slice(&self.headers);
        let number = self.dice.draw(&self.plan);
        // The rule of `bench/load`.
        let company = number * self.plan.companies / self.plan.credentials;
        let (company, credential) = (digits(b'c', company), digits(b'k', number));
        let scope = self.plan.scope.as_bytes();
        let length = 2 + company.len() + 2 + credential.len() + 2 + scope.len();
        frame(&mut self.out, 5 + length, DATA, END_STREAM, stream);
        self.out.push(0);
        self.out.extend((length as u32).to_be_bytes());
        for (tag, text) in [(0x0A, &company[..]), (0x12, &credential[..]), (0x1A, scope)] {
            self.out.extend([tag, text.len() as u8]);
            self.out.extend_from_slice(text);
        }
        let slot = (stream / 2) as usize % self.since.len();
        self.since[slot] = Instant::now();
    }

    async fn run(mut self) -> Result<Done, Failure> {
        let mut socket = TcpStream::connect(&self.plan.address).await?;
        socket.set_nodelay(true)?;
        self.out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(&mut self.out, 0, SETTINGS, 0, 0);
        frame(&mut self.out, 4, WINDOW_UPDATE, 0, 0);
        self.out.extend(WINDOW.to_be_bytes());
        for _ in 0..self.plan.streams {
            self.ask();
        }
        let end = Instant::now() + self.plan.time;
        let (mut under_way, mut used) = (self.plan.streams, 0);
        let mut buffer = vec![0; 1 << 16];
        let mut filled = 0;
        while under_way > 0 {
            socket.write_all(&self.out).await?;
            self.out.clear();
            let read = socket.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            filled += read;
            let now = Instant::now();
            let mut rest = &buffer[..filled];
            while let [a, b, c, kind, flags, s0, s1, s2, s3, behind @ ..] = rest {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
                let Some(payload) = behind.get(..length) else { break };
                rest = &behind[length..];
                match *kind {
                    DATA => {
                        used += length as u32;
                        self.done.allowed += u64::from(payload.get(5..7) == Some(&ALLOWED));
                    }
                    HEADERS if flags & END_STREAM != 0 => {
                        self.done.checks += 1;
                        let slot = (stream / 2) as usize % self.since.len();
                        let time = now.saturating_duration_since(self.since[slot]);
                        self.done.microseconds.push(time.as_micros() as u32);
                        if now < end {
                            self.ask();
                        } else {
                            under_way -= 1;
                        }
                    }
                    SETTINGS if flags & ACK == 0 => frame(&mut self.out, 0, SETTINGS, ACK, 0),
                    PING if flags & ACK == 0 => {
                        frame(&mut self.out, length, PING, ACK, 0);
                        self.out.extend_from_slice(payload);
                    }
                    RST_STREAM | GOAWAY => return Err("the server broke it off".into()),
                    _ => {}
                }
            }
            let left = rest.len();
            buffer.copy_within(filled - left..filled, 0);
            filled = left;
            if used > WINDOW / 2 {
                frame(&mut self.out, 4, WINDOW_UPDATE, 0, 0);
                self.out.extend(used.to_be_bytes());
                used = 0;
            }
        }
        Ok(self.done)
    }
}

/// A letter and seven digits.
fn digits(letter: u8, mut number: u64) -> [u8; 8] {
    let mut text = [letter; 8];
    for place in text[1..].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let knob = |name: &str| {
        let place = words.iter().position(|word| word == name).ok_or(USAGE)?;
        words.get(place + 1).map(String::as_str).ok_or(USAGE)
    };
    let plan = Plan {
        address: knob("--address")?.to_owned(),
        credentials: knob("--credentials")?.parse()?,
        step: step(knob("--credentials")?.parse()?),
        companies: knob("--companies")?.parse()?,
        scope: knob("--scope")?.to_owned(),
        keys: match knob("--keys")? {
            "uniform" => Keys::Uniform,
            "zipf" => Keys::Zipf,
            _ => return Err(USAGE.into()),
        },
        streams: knob("--streams")?.parse()?,
        time: Duration::from_millis(knob("--milliseconds")?.parse()?),
    };
    let (connections, seed): (u64, u64) =
        (knob("--connections")?.parse()?, knob("--seed")?.parse()?);
    let start = Instant::now();
    let lanes: Vec<_> = (0..connections)
        .map(|number| {
            let lane = Lane {
                headers: headers(&plan.address),
                dice: Dice((seed * connections + number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                out: Vec::new(),
                next: 1,
                since: vec![start; 4096],
                done: Done::default(),
                plan: plan.clone(),
            };
            tokio::spawn(lane.run())
        })
        .collect();
    let mut all = Done::default();
    for lane in lanes {
        let done = lane.await??;
        all.checks += done.checks;
        all.allowed += done.allowed;
        all.microseconds.extend(done.microseconds);
    }
    let seconds = start.elapsed().as_secs_f64();
    all.microseconds.sort_unstable();
    let percentile =
        |n: usize| all.microseconds.get(all.microseconds.len() * n / 100).unwrap_or(&0);
    println!(
        "{{\"checks\": {}, \"allowed\": {}, \"seconds\": {seconds:.6}, \"p50_us\": {}, \"p99_us\": {}, \"most_us\": {}}}",
        all.checks,
        all.allowed,
        percentile(50),
        percentile(99),
        all.microseconds.last().unwrap_or(&0)
    );
    Ok(())
}
