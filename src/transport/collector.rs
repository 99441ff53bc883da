//! Collector: reads all counters of the server when Prometheus scrapes it.
//!
//! Each module counts for itself. The collector sums and names the counts only during a scrape. No
//! label has a value for each company, credential or user.
//!
//! Not here: the counters; see [`crate::metrics`]. And the HTTP endpoint; see
//! [`crate::observe::prometheus`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::call_counters::CallCounters;
use super::call_slots::CallSlots;
use super::tls::Tls;
use crate::authority::issuer_keys::IssuerKeysStatus;
use crate::authority::{Authority, TokenResult};
use crate::authzen::counters::AuthzenCounters;
use crate::grpc::Api;
use crate::metrics::supervise::Supervisor;
use crate::metrics::{Histogram, HistogramSnapshot, machine_time};
use crate::oauth::authorization_server::AuthorizationServer;
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::log;
use crate::observe::otlp::Traces;
use crate::observe::rejected_callers::RejectedCallers;
use crate::store::boot_clock;
use crate::store::replicated::Replica;
use crate::store::replicated::membership::MembershipState;
use crate::wire::names::{code_name, reason_name};

/// The places where the server counts.
pub(crate) struct ServerCollector {
    pub(crate) api: Api,
    pub(crate) workers: Vec<Arc<CallCounters>>,
    /// The authorization server, if it is on, and the counters of its worker.
    pub(crate) oauth: Option<(Arc<AuthorizationServer>, Arc<CallCounters>)>,
    /// The counters of the HTTP API and of its workers, if it is on.
    pub(crate) http: Option<(Arc<AuthzenCounters>, Vec<Arc<CallCounters>>)>,
    pub(crate) started: SystemTime,
    pub(crate) tls: Option<Tls>,
    pub(crate) traces: Option<Arc<Traces>>,
    pub(crate) events: Arc<ConnectionEvents>,
    pub(crate) call_slots: Arc<CallSlots>,
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    pub(crate) supervisor: Arc<Supervisor>,
}

impl fmt::Debug for ServerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCollector")
    }
}

/// The registry that answers a scrape.
pub(crate) fn registry(collector: ServerCollector) -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector { started: collector.started }));
    registry.sub_registry_with_prefix("scopegate").register_collector(Box::new(collector));
    Arc::new(registry)
}

/// The reply to one scrape, while it is written.
struct ScrapeWriter<'a>(DescriptorEncoder<'a>);

impl ScrapeWriter<'_> {
    /// Writes counters with labels.
    fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let counter = ConstCounter::new(count);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    /// Writes gauges with one label.
    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); 1], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, snapshot: &HistogramSnapshot) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut histogram = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let buckets: Vec<_> = snapshot.classes().collect();
        histogram.encode_histogram::<NoLabelSet>(
            snapshot.seconds(),
            snapshot.count(),
            &buckets,
            None,
        )
    }
}

fn snapshot(histogram: &Histogram) -> HistogramSnapshot {
    let mut snapshot = HistogramSnapshot::default();
    histogram.add_to(&mut snapshot);
    snapshot
}

/// The metrics of the process. They have the names that Prometheus itself uses.
#[derive(Debug)]
struct ProcessCollector {
    started: SystemTime,
}

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let help = "Start time of the process, in seconds since 1970";
        ScrapeWriter(encoder).gauge("process_start_time", help, Some(&Unit::Seconds), started)
    }
}

impl Collector for ServerCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = ScrapeWriter(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut family = out.0.encode_descriptor(
            "build_info",
            "The version that runs",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(family.encode_family(&version)?)?;
        let calls = CallCounters::read(&self.workers);
        let codes = calls.iter().map(|(path, code, count)| {
            // A method of another API keeps its whole path: Envoy has a `Check`, too.
            let method = path.strip_prefix("/scopegate.v1.");
            let method = method.and_then(|own| own.rsplit('/').next()).unwrap_or(path);
            ([("method", method), ("code", code_name(*code))], *count)
        });
        out.counters("grpc_requests", "Calls answered, by method and gRPC status", codes)?;
        let (in_flight, connections) = CallCounters::in_flight(&self.workers);
        out.gauge("grpc_requests_in_flight", "Calls in flight", None, in_flight as u64)?;
        out.gauge("connections", "Connections open", None, connections as u64)?;
        if let Some((server, calls)) = &self.oauth {
            encode_oauth(&mut out, server, calls)?;
        }
        if let Some((counters, calls)) = &self.http {
            encode_http(&mut out, counters, calls)?;
        }
        let by_reason = |counts: [(&'static str, u64); 3]| {
            counts.map(|(reason, count)| ([("reason", reason)], count))
        };
        let help = "Connections that were rejected: too many, not accepted by the system, or no TLS handshake";
        out.counters("connections_refused", help, by_reason(self.events.refused()))?;
        let help =
            "Connections that the server asked to end: by age, idle, or without an accepted call";
        out.counters("connections_ended", help, by_reason(self.events.ends()))?;
        out.gauge("watch_streams", "Streams of changes open", None, self.api.watchers.read())?;
        let memory = &self.api.memory;
        let help = "Memory held for requests and replies";
        out.gauge("call_memory", help, Some(&Unit::Bytes), memory.held())?;
        let help = "The limit of call_memory_bytes";
        out.gauge("call_memory_limit", help, Some(&Unit::Bytes), memory.limit())?;
        let help = "Calls rejected because the memory for calls was full";
        out.counter("call_memory_refused", help, memory.refused())?;
        let by_kind = |(kind, number)| ([("kind", kind)], number);
        let help = "Health calls and reflection streams open";
        out.gauges("streams_open", help, None, self.call_slots.open().map(by_kind))?;
        let help =
            "Health calls and reflection streams that were rejected because there were too many";
        out.counters("streams_refused", help, self.call_slots.rejected().map(by_kind))?;
        let help = "Requests that were no gRPC calls (HTTP 405 and 415)";
        out.counter("requests_not_grpc", help, CallCounters::not_grpc(&self.workers))?;
        if let Some(end) = self.tls.as_ref().and_then(Tls::not_after) {
            let help = "When the server's certificate expires, in seconds since 1970";
            let end = u64::try_from(end.as_second()).unwrap_or(0);
            out.gauge("tls_certificate_not_after_timestamp", help, Some(&Unit::Seconds), end)?;
        }
        if let Some(log) = &self.api.decisions {
            let counts = log.counts();
            let help = "Decisions written to the decision log";
            out.counter("decision_log_written", help, counts.written.read())?;
            let help = "Decisions that the decision log dropped";
            out.counter("decision_log_dropped", help, counts.dropped.read())?;
        }
        if let Some(traces) = &self.traces {
            let counts = traces.counts();
            out.counter("otlp_spans_sent", "Spans sent to the collector", counts.sent.read())?;
            let help = "Spans that did not fit the queue, or that the collector did not take";
            out.counter("otlp_spans_dropped", help, counts.dropped.read())?;
        }
        let serving = self.api.authority();
        let help = "Callers that were rejected, by reason";
        let refused =
            self.rejected_callers.counts().map(|(why, count)| ([("reason", why.name())], count));
        out.counters("refused_callers", help, refused)?;
        let help = "Lines of the log that were lost because standard error could not be written";
        out.counter("log_lines_dropped", help, log::dropped_lines())?;
        let help = "Threads and tasks of the server that were restarted after a panic";
        let restarts = self.supervisor.restarts();
        let restarts = restarts.iter().map(|(name, count)| ([("task", *name)], *count));
        out.counters("task_restarts", help, restarts)?;
        let help = "1 if the store is open, else 0";
        out.gauge("ready", help, None, serving.is_some().into())?;
        let Some(authority) = serving else { return Ok(()) };
        let help = "1 if the catalog file was rejected at the start, else 0";
        out.gauge("catalog_file_rejected", help, None, self.api.catalog_rejected.read())?;
        let help = "How far the store's time is ahead of the machine's clock";
        let ahead = authority.clock_ahead().as_secs();
        out.gauge("clock_ahead", help, Some(&Unit::Seconds), ahead)?;
        encode_authority(&mut out, authority)?;
        authority.replica().map_or(Ok(()), |replica| encode_replica(&mut out, authority, replica))
    }
}

/// The metrics of the authorization server.
fn encode_oauth(
    out: &mut ScrapeWriter<'_>,
    server: &AuthorizationServer,
    calls: &CallCounters,
) -> fmt::Result {
    let counters = &server.counters;
    let requests: Vec<_> = counters
        .requests()
        .map(|(endpoint, status, count)| (endpoint, status.to_string(), count))
        .collect();
    let requests = requests.iter().map(|(endpoint, status, count)| {
        ([("endpoint", *endpoint), ("status", status.as_str())], *count)
    });
    let help = "Requests of API clients answered, by endpoint and HTTP status";
    out.counters("oauth_requests", help, requests)?;
    let in_flight = calls.in_flight.load(Ordering::Relaxed) as u64;
    out.gauge("oauth_requests_in_flight", "Requests of API clients in flight", None, in_flight)?;
    let connections = calls.connections.load(Ordering::Relaxed) as u64;
    out.gauge("oauth_connections", "Connections of API clients open", None, connections)?;
    let issued = counters.tokens_issued().map(|(grant, count)| ([("grant", grant)], count));
    out.counters("tokens_issued", "Access tokens issued, by grant", issued)?;
    let refused = counters.tokens_refused();
    let refused =
        refused.map(|(grant, error, count)| ([("grant", grant), ("error", error)], count));
    out.counters("tokens_refused", "Access tokens refused, by grant and error code", refused)
}

/// The metrics of the HTTP API.
fn encode_http(
    out: &mut ScrapeWriter<'_>,
    counters: &AuthzenCounters,
    calls: &[Arc<CallCounters>],
) -> fmt::Result {
    let requests: Vec<_> = counters
        .requests()
        .map(|(endpoint, status, count)| (endpoint, status.to_string(), count))
        .collect();
    let requests = requests.iter().map(|(endpoint, status, count)| {
        ([("endpoint", *endpoint), ("status", status.as_str())], *count)
    });
    let help = "Requests of the HTTP API answered, by endpoint and HTTP status";
    out.counters("http_requests", help, requests)?;
    let (in_flight, connections) = CallCounters::in_flight(calls);
    let help = "Requests of the HTTP API in flight";
    out.gauge("http_requests_in_flight", help, None, in_flight as u64)?;
    out.gauge("http_connections", "Connections of the HTTP API open", None, connections as u64)
}

fn encode_authority(out: &mut ScrapeWriter<'_>, authority: &Authority) -> fmt::Result {
    let sum = authority.sum();
    let allowed = ([("decision", "ALLOWED"), ("reason", "ALLOWED")], sum.allowed);
    let denied = sum.denied.iter().map(|(reason, count)| {
        ([("decision", "DENIED"), ("reason", reason_name(*reason))], *count)
    });
    let help = "Checks decided, including those of batches";
    out.counters("decisions", help, [allowed].into_iter().chain(denied))?;
    let help = "Duration of a check, from its message to its reply";
    out.histogram("check_duration", help, &sum.checks)?;
    let help = "Duration of a batch of checks, from its message to its reply";
    out.histogram("batch_check_duration", help, &sum.batches)?;
    let places = [("cache", sum.cached), ("store", sum.read)];
    let places = places.map(|(place, count)| ([("tier", place)], count));
    out.counters("cache_lookups", "Facts that checks read, by the tier that had them", places)?;
    out.gauge("cache_entries", "Facts in the cache", None, authority.cached())?;
    let help =
        "Access tokens that were verified, by result, and whether the result was in the cache";
    let tokens = sum.tokens.iter().map(|(result, count)| {
        let (result, cached) = match result {
            TokenResult::Cached => ("VALID", "true"),
            TokenResult::Valid => ("VALID", "false"),
            TokenResult::Invalid => ("INVALID", "false"),
            TokenResult::Unverifiable => ("UNVERIFIABLE", "false"),
        };
        ([("result", result), ("cached", cached)], *count)
    });
    out.counters("tokens_verified", help, tokens)?;
    out.gauge(
        "token_cache_entries",
        "Verified tokens in the cache",
        None,
        authority.cached_tokens(),
    )?;
    let help = "Streams of changes that lag and read from the store";
    out.gauge("watchers_lagging", help, None, authority.lagging_watchers())?;
    let help = "Memory of changes that are held for streams of changes";
    let bytes = authority.bytes_for_watchers();
    out.gauge("watchers_memory", help, Some(&Unit::Bytes), bytes)?;
    encode_issuers(out, &authority.issuer_keys().status())?;
    let store = authority.store_measures();
    out.counter("changes_committed", "Changes committed", store.committed.read())?;
    let help =
        "Proposals of changes that were not committed, for example because facts had changed";
    out.counter("commit_conflicts", help, store.refused.read())?;
    let help = "Proposals of changes that were rejected by a limit of their company";
    let at_bounds = store.at_bounds().map(|(bound, count)| ([("bound", bound.name())], count));
    out.counters("company_bounds_met", help, at_bounds)?;
    out.gauge(
        "commit_queue_depth",
        "Commands that wait for the writer",
        None,
        store.waiting.read(),
    )?;
    out.histogram("commit_duration", "Duration of a batch of changes", &snapshot(&store.batches))?;
    let help = "Duration of the disk sync of a batch";
    out.histogram("commit_sync_duration", help, &snapshot(&store.syncs))?;
    let help = "Free disk space, as of the last batch";
    out.gauge("disk_free", help, Some(&Unit::Bytes), store.room.read())?;
    let help = "Disk space reserved for changes that remove rights, as of the last batch";
    out.gauge("disk_reserve", help, Some(&Unit::Bytes), store.reserve.read())?;
    let help = "The latest published revision";
    out.gauge("published_revision", help, None, authority.published().0)
}

/// The metrics of a replica.
fn encode_replica(
    out: &mut ScrapeWriter<'_>,
    authority: &Authority,
    replica: &Replica,
) -> fmt::Result {
    let state = match &*replica.state().borrow() {
        MembershipState::Joining(_) => "joining",
        MembershipState::Joined { .. } => "joined",
        MembershipState::Refused(_) => "refused",
        MembershipState::Left => "left",
    };
    let states = ["joining", "joined", "refused", "left"]
        .map(|name| ([("state", name)], u64::from(name == state)));
    out.gauges("replica_state", "1 for the present state of the replica, else 0", None, states)?;
    let now = boot_clock::now();
    let left = Duration::from_nanos(authority.lease().until().saturating_sub(now));
    let help = "For how long the replica may answer without another answer of etcd, in seconds";
    let descriptor =
        out.0.encode_descriptor("replica_lease_seconds_left", help, None, MetricType::Gauge)?;
    ConstGauge::new(left.as_secs_f64()).encode(descriptor)?;
    let help = "1 if the catalog in force differs from the catalog file of the start, else 0";
    let file = replica.report().borrow().catalog;
    let differs = file.is_some_and(|file| file != authority.catalog_digest());
    out.gauge("replica_catalog_file_differs", help, None, differs.into())?;
    let (log, sessions) = (replica.log_metrics(), replica.membership_metrics());
    let help = "The last revision of the log in etcd, as the replica last read it";
    out.gauge("replica_head_revision", help, None, log.head_revision.read())?;
    let help = "The latest revision that the replica has published";
    out.gauge("replica_published_revision", help, None, authority.published().0)?;
    let help = "Bytes of the entries of the log in etcd";
    out.gauge("replica_log", help, Some(&Unit::Bytes), log.bytes.read())?;
    let (space, bytes) = (replica.etcd_space(), Some(&Unit::Bytes));
    let help = "Bytes in use of the database of etcd, at the fullest node that answered";
    out.gauge("replica_etcd_used", help, bytes, space.used.read())?;
    out.gauge("replica_etcd_quota", "Quota of the database of etcd", bytes, space.quota())?;
    let help = "Duration of a beat, by which the replica renews its lease";
    out.histogram("replica_beat", help, &snapshot(&sessions.beats))?;
    let help = "Duration of a commit of own changes to the log in etcd";
    out.histogram("replica_commit", help, &snapshot(&log.commits))?;
    let help = "Commits that came second to those of another replica, and were tried again";
    out.counter("replica_commits_lost", help, log.lost.read())?;
    let help = "Entries that replaced other facts here than at the replica that made them";
    out.counter("replica_diverged", help, authority.store_measures().diverged.read())?;
    let help =
        "Snapshots of the store that other replicas began to take, and that this one installed";
    let ways = [("given", log.snapshots_given.read()), ("taken", log.snapshots_taken.read())];
    out.counters("replica_snapshots", help, ways.map(|(way, count)| ([("way", way)], count)))?;
    let help = "Sessions in which the replica could answer calls";
    out.counter("replica_sessions", help, sessions.sessions.read())?;
    let barrier = replica.barrier_metrics();
    let help = "Time for which committed changes waited for all replicas";
    out.histogram("replica_barrier", help, &snapshot(&barrier.seconds))?;
    let help = "Changes that not every replica had published when their wait was given up";
    out.counter("replica_barrier_given_up", help, barrier.given_up.read())?;
    let waits = barrier.waits.read();
    let waits = waits.iter().map(|(name, count)| ([("for", name.as_str())], *count));
    out.counters("replica_barrier_waits", "Waits of changes, by the awaited replica", waits)?;
    let fences = barrier.fences.read();
    let fences = fences.iter().map(|(name, count)| ([("of", name.as_str())], *count));
    out.counters("replica_fences", "Sessions of other replicas that this one ended", fences)?;
    let errors = replica.settings().etcd.errors.read();
    let errors = errors.map(|(kind, count)| ([("kind", kind)], count));
    out.counters("replica_etcd_errors", "Calls of etcd that ended with an error", errors)?;
    let help = "How far the clock of another replica is ahead of this one";
    let seconds = Some(&Unit::Seconds);
    let mut family =
        out.0.encode_descriptor("replica_clock_ahead", help, seconds, MetricType::Gauge)?;
    let clocks = replica.members().clocks_ahead(now, machine_time());
    for (name, ahead) in clocks.iter().filter(|(name, _)| **name != replica.settings().name) {
        let labels = [("of", name.as_str())];
        ConstGauge::new(ahead.as_secs_f64()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_issuers(out: &mut ScrapeWriter<'_>, issuers: &[IssuerKeysStatus]) -> fmt::Result {
    fn of(status: &IssuerKeysStatus) -> [(&str, &str); 1] {
        [("issuer", &status.issuer.name)]
    }
    let ages = issuers.iter().filter_map(|status| Some((of(status), status.age?.as_secs())));
    let help = "Time since the keys of an issuer that are in use were read";
    out.gauges("issuer_keys_age", help, Some(&Unit::Seconds), ages)?;
    let help = "Whether the server has usable keys of an issuer: 1 or 0";
    let usable = issuers.iter().map(|status| (of(status), status.is_usable.into()));
    out.gauges("issuer_keys_usable", help, None, usable)?;
    let fetched = || issuers.iter().filter(|status| status.is_fetched());
    let help = "The age from which on the keys of an issuer are not used any more";
    let limits = fetched().map(|status| (of(status), status.issuer.usable_for.into()));
    out.gauges("issuer_keys_usable_for", help, Some(&Unit::Seconds), limits)?;
    let help = "Fetches of the keys of an issuer, by result";
    let counts = fetched().flat_map(|status| {
        let [(_, issuer)] = of(status);
        [("ok", status.fetched), ("failed", status.failed)]
            .map(|(result, count)| ([("issuer", issuer), ("result", result)], count))
    });
    out.counters("issuer_fetches", help, counts)
}
