use super::persisted::ClockEvent;
use super::*;

const NOON: i64 = 1_750_000_000_000;
const HOUR: i64 = 3_600_000;

fn at(mark: i64) -> Clock {
    Clock::unobserved(Arc::new(DecidingTime::starting_at(Some(timestamp(mark)))))
}

/// A clock, and the monotonic and the wall clock of its machine.
struct Machine(Clock, Instant, i64);

impl Machine {
    fn new() -> Self {
        let machine = Self(at(0), Instant::now(), NOON);
        machine.0.observe(NOON, machine.1);
        machine
    }

    /// Time passes, by so many seconds.
    fn pass(&mut self, seconds: i64) -> Option<ClockEvent> {
        self.1 += Duration::from_secs(seconds.unsigned_abs());
        self.set(seconds * 1_000)
    }

    /// The machine's clock is set forward, or back.
    fn set(&mut self, by: i64) -> Option<ClockEvent> {
        self.2 += by;
        self.0.time.advance(self.2);
        self.0.persisted.find(self.2, self.1)
    }

    /// The deciding time and the persisted time, relative to noon.
    fn times(&self) -> (i64, i64) {
        (self.0.time.latest() - NOON, self.0.persisted.read() - NOON)
    }
}

#[test]
fn clock_starts_no_earlier_than_the_stores_mark() {
    let mark = Timestamp::from_millisecond(9_000_000_000_000).expect("a time");
    let clock = Clock::of(Arc::new(DecidingTime::starting_at(Some(mark))));
    assert_eq!((clock.now(), clock.persisted()), (mark, mark));
    assert!(clock.believed() < mark, "the mark may be a reported expiry");
    let clock = Clock::of(Arc::new(DecidingTime::starting_at(None)));
    assert!(
        clock.persisted() >= Timestamp::now().checked_sub(CLOCK_LEAD).expect("a time"),
        "believed"
    );
}

#[test]
fn d19_jump_is_persisted_once_it_has_lasted() {
    let mut machine = Machine::new();
    assert_eq!((machine.pass(1), machine.set(HOUR)), (None, None), "an hour is no jump");
    assert_eq!(machine.times(), (HOUR + 1_000, HOUR + 1_000));
    assert_eq!(machine.set(HOUR + 1), Some(ClockEvent::Jumped(HOUR + 1)));
    assert_eq!(machine.times(), (2 * HOUR + 1_001, HOUR + 1_000));
    for n in 1..600 {
        assert_eq!(machine.pass(1), None);
        assert_eq!(machine.times(), (2 * HOUR + 1_001 + n * 1_000, HOUR + 1_000 + n * 1_000));
        machine.0.raise(timestamp(NOON + HOUR + 1_500));
        assert_eq!(
            machine.0.believed(),
            timestamp(NOON + HOUR + 1_000),
            "nothing is removed by it"
        );
    }
    assert_eq!(machine.pass(1), Some(ClockEvent::Believed));
    assert_eq!(machine.0.believed(), timestamp(NOON + 2 * HOUR + 601_001));
    assert_eq!(machine.times(), (2 * HOUR + 601_001, 2 * HOUR + 601_001));
}

#[test]
fn d19_frequent_observations_do_not_stop_a_doubted_clock() {
    let mut machine = Machine::new();
    machine.set(2 * HOUR);
    for n in 1..=1_000 {
        machine.1 += Duration::from_micros(300);
        machine.set(i64::from(n % 3 == 0));
    }
    assert_eq!(machine.times(), (2 * HOUR + 333, 300));
}

#[test]
fn d19_jump_that_does_not_last_is_not_persisted_and_reactivates_nothing() {
    let mut machine = Machine::new();
    let years = 73 * 8_766 * HOUR;
    assert_eq!(machine.set(years), Some(ClockEvent::Jumped(years)));
    assert_eq!(machine.pass(500), None);
    // Another jump has to last as well, in either direction.
    assert_eq!(machine.set(2 * HOUR), Some(ClockEvent::Jumped(years + 2 * HOUR)));
    assert_eq!(machine.pass(500), None);
    assert_eq!(machine.set(-3 * HOUR), Some(ClockEvent::Jumped(years - HOUR)));
    assert_eq!(machine.pass(599), None);
    assert_eq!(machine.times().1, 1_599_000, "the pace of the monotonic clock");
    assert_eq!(machine.set(HOUR - years), Some(ClockEvent::Back));
    assert_eq!(machine.times(), (years + 2 * HOUR + 1_000_000, 1_599_000));
    machine.pass(10_000);
    assert_eq!(machine.times(), (years + 2 * HOUR + 1_000_000, 11_599_000));
}

#[test]
fn d19_only_reported_expiries_raise_the_persisted_time() {
    let mut machine = Machine::new();
    machine.set(10 * HOUR);
    let reported = timestamp(NOON + 2 * HOUR);
    machine.0.raise(reported);
    assert_eq!(machine.times(), (10 * HOUR, 2 * HOUR));
    machine.0.raise(timestamp(NOON));
    machine.pass(300);
    assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR), "no further than reported");
    assert_eq!(machine.set(-10 * HOUR), Some(ClockEvent::Back));
    assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR));
    machine.set(10 * HOUR);
    machine.set(-9 * HOUR);
    assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR), "believed, and less");
    // A clock that lags behind and catches up has not jumped.
    machine.set(-5 * HOUR);
    machine.pass(60);
    assert_eq!(machine.set(5 * HOUR), None);
    assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR));
    machine.pass(2 * 3_600);
    assert_eq!(machine.times(), (10 * HOUR + 300_000, 3 * HOUR + 360_000));
}

#[test]
fn expiry_within_a_millisecond_has_passed_at_its_end() {
    let at = |nanosecond| Timestamp::from_nanosecond(nanosecond).expect("a time");
    assert_eq!(rounded_up(at(5_000_000)), at(5_000_000));
    assert_eq!(rounded_up(at(5_000_001)), at(6_000_000));
    assert_eq!(rounded_up(at(-1)), at(0));
}
