//! Metrics: what Prometheus reads, on a port of its own.
//!
//! Everything is counted where it happens, and put together only when somebody looks. No label
//! grows with companies, credentials or users.
//!
//! Not here: the counting; see [`crate::metrics`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::incidents::Incidents;
use super::otlp::Traces;
use super::rejected_callers::RejectedCallers;
use crate::authority::Authority;
use crate::grpc::Api;
use crate::metrics::supervise::Supervisor;
use crate::metrics::{Histogram, HistogramSnapshot};
use crate::observe::log;
use crate::transport::call_counters::CallCounters;
use crate::transport::call_slots::CallSlots;
use crate::transport::tls::Tls;
use crate::wire::names::{code_name, reason_name};

/// The most connections at once. Beyond it the oldest is closed: a scrape is answered in less time
/// than it takes to fill the others.
const MOST: usize = 64;
/// How long a request's head may take, from the begin of its connection.
const HEAD: Duration = Duration::from_secs(1);
/// The most bytes of a head; the least that hyper allows.
const HEAD_BYTES: usize = 8 << 10;
/// How long a connection may take as a whole.
const WHOLE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, as when all file handles are taken.
const BREATH: Duration = Duration::from_millis(100);

/// Where everything is counted.
pub(crate) struct Metrics {
    pub(crate) doors: Api,
    pub(crate) cores: Vec<Arc<CallCounters>>,
    pub(crate) started: SystemTime,
    pub(crate) tls: Option<Tls>,
    pub(crate) traces: Option<Arc<Traces>>,
    pub(crate) incidents: Arc<Incidents>,
    pub(crate) places: Arc<CallSlots>,
    pub(crate) refused: Arc<RejectedCallers>,
    pub(crate) supervisor: Arc<Supervisor>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// What is answered.
pub(crate) fn registry(metrics: Metrics) -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessMetrics { started: metrics.started }));
    registry.sub_registry_with_prefix("scopegate").register_collector(Box::new(metrics));
    Arc::new(registry)
}

/// Answers scrapes, for as long as the process runs.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    registry: Arc<Registry>,
    incidents: Arc<Incidents>,
) {
    // In the order in which they came.
    let mut open: VecDeque<AbortOnDropHandle<()>> = VecDeque::with_capacity(MOST);
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MOST {
                    open.pop_front();
                }
                let registry = Arc::clone(&registry);
                open.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    tokio::time::timeout(WHOLE, attend(connection, registry)).await.ok();
                })));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                incidents.not_scraped();
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn attend(connection: TcpStream, registry: Arc<Registry>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&registry, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    // Whoever is gone is gone.
    connection.await.ok();
}

fn answer(registry: &Registry, method: &Method, path: &str) -> Response<String> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        response
    };
    if path != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics here");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read");
    }
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written");
    }
    let mut response = Response::new(text);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// One scrape in the making.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// Counts by labels.
    fn counts<'l, const N: usize>(
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

    fn count(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let counter = ConstCounter::new(count);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn level(&mut self, name: &str, help: &str, unit: Option<&Unit>, level: u64) -> fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX));
        gauge.encode(self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    /// Levels by one label.
    fn levels<'l>(
        &mut self,
        name: &str,
        help: &str,
        levels: impl IntoIterator<Item = ([(&'l str, &'l str); 1], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, level) in levels {
            let gauge = ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn times(&mut self, name: &str, help: &str, times: &HistogramSnapshot) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut histogram = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let classes: Vec<_> = times.classes().collect();
        histogram.encode_histogram::<NoLabelSet>(times.seconds(), times.count(), &classes, None)
    }
}

fn read(times: &Histogram) -> HistogramSnapshot {
    let mut read = HistogramSnapshot::default();
    times.add_to(&mut read);
    read
}

/// The metrics of the process, which have Prometheus' own names.
#[derive(Debug)]
struct ProcessMetrics {
    started: SystemTime,
}

impl Collector for ProcessMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let help = "Start time of the process, in seconds since 1970";
        Page(encoder).level("process_start_time", help, Some(&Unit::Seconds), started)
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut family = page.0.encode_descriptor(
            "build_info",
            "The version that runs",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(family.encode_family(&version)?)?;
        let calls = CallCounters::read(&self.cores);
        let codes = calls.iter().map(|(path, code, count)| {
            let method = path.rsplit('/').next().unwrap_or(path);
            ([("method", method), ("code", code_name(*code))], *count)
        });
        page.counts("grpc_requests", "Calls answered, by method and gRPC status", codes)?;
        let (under_way, connections) = CallCounters::in_flight(&self.cores);
        page.level("grpc_requests_in_flight", "Calls under way", None, under_way as u64)?;
        page.level("connections", "Connections open", None, connections as u64)?;
        let of = |counts: [(&'static str, u64); 3]| {
            counts.map(|(reason, count)| ([("reason", reason)], count))
        };
        let what = "Connections that were not served: too many, not accepted, or no TLS handshake";
        page.counts("connections_refused", what, of(self.incidents.refused()))?;
        let what =
            "Connections that the server asked to end: of age, idle, or with no call accepted";
        page.counts("connections_ended", what, of(self.incidents.ends()))?;
        page.level("watch_streams", "Streams of changes open", None, self.doors.watchers.read())?;
        let memory = &self.doors.memory;
        let what = "Memory held for requests that are read and replies that are sent";
        page.level("call_memory", what, Some(&Unit::Bytes), memory.held())?;
        let what = "The limit of call_memory_bytes";
        page.level("call_memory_limit", what, Some(&Unit::Bytes), memory.limit())?;
        let what = "Calls refused because they would have held more memory than there is for them";
        page.count("call_memory_refused", what, memory.refused())?;
        let by_kind = |(kind, number)| ([("kind", kind)], number);
        let what = "Health calls and reflection streams open, until their replies were sent";
        page.levels("streams_open", what, self.places.open().map(by_kind))?;
        let what = "Health calls and reflection streams that were one too many";
        page.counts("streams_refused", what, self.places.refused().map(by_kind))?;
        let what = "Requests that were no gRPC calls (HTTP 405 and 415)";
        page.count("requests_not_grpc", what, CallCounters::not_grpc(&self.cores))?;
        if let Some(end) = self.tls.as_ref().and_then(Tls::not_after) {
            let what = "When the server's certificate ends, in seconds since 1970";
            let end = u64::try_from(end.as_second()).unwrap_or(0);
            page.level("tls_certificate_not_after_timestamp", what, Some(&Unit::Seconds), end)?;
        }
        if let Some(log) = &self.doors.decisions {
            let counts = log.counts();
            let what = "Decisions written to the decision log";
            page.count("decision_log_written", what, counts.written.read())?;
            let what = "Decisions that the decision log had no room for";
            page.count("decision_log_dropped", what, counts.dropped.read())?;
        }
        if let Some(traces) = &self.traces {
            let counts = traces.counts();
            page.count("otlp_spans_sent", "Spans sent to the collector", counts.sent.read())?;
            let what = "Spans that there was no room for, or that the collector did not take";
            page.count("otlp_spans_dropped", what, counts.dropped.read())?;
        }
        let serving = self.doors.authority();
        let what = "Callers that were refused, by why";
        let refused = self.refused.counts().map(|(why, count)| ([("reason", why.name())], count));
        page.counts("refused_callers", what, refused)?;
        let what = "Lines of the log that are lost: standard error could not be written";
        page.count("log_lines_dropped", what, log::dropped_lines())?;
        let what = "Threads and tasks of the server that panicked and were started again";
        let restarts = self.supervisor.restarts();
        let restarts = restarts.iter().map(|(name, count)| ([("task", *name)], *count));
        page.counts("task_restarts", what, restarts)?;
        let what = "Whether the store is open: 1 if so";
        page.level("ready", what, None, serving.is_some().into())?;
        let Some(authority) = serving else { return Ok(()) };
        let what = "Whether the catalog file of the start was rejected: 1 if so";
        page.level("catalog_file_rejected", what, None, self.doors.catalog_rejected.read())?;
        let what = "By how much the store's time is ahead of the machine's clock";
        let ahead = authority.clock_ahead().as_secs();
        page.level("clock_ahead", what, Some(&Unit::Seconds), ahead)?;
        authority_page(&mut page, authority)
    }
}

fn authority_page(page: &mut Page<'_>, authority: &Authority) -> fmt::Result {
    let sum = authority.sum();
    let allowed = ([("decision", "ALLOWED"), ("reason", "ALLOWED")], sum.allowed);
    let denied = sum.denied.iter().map(|(reason, count)| {
        ([("decision", "DENIED"), ("reason", reason_name(*reason))], *count)
    });
    let what = "Checks decided, those of batches included";
    page.counts("decisions", what, [allowed].into_iter().chain(denied))?;
    let what = "How long a check took, from its message to its answer";
    page.times("check_duration", what, &sum.checks)?;
    let what = "How long a batch of checks took, from its message to its answer";
    page.times("batch_check_duration", what, &sum.batches)?;
    let places = [("l1", sum.near), ("l2", sum.cached), ("store", sum.read)];
    let places = places.map(|(place, count)| ([("tier", place)], count));
    page.counts("cache_lookups", "Facts that checks needed, by where they were found", places)?;
    page.level("cache_entries", "Facts in the cache", None, authority.cached())?;
    let what = "Streams of changes that read the store, because they are behind";
    page.level("watchers_lagging", what, None, authority.lagging_watchers())?;
    let what = "Changes that are kept in memory for streams of changes";
    let bytes = authority.bytes_for_watchers();
    page.level("watchers_memory", what, Some(&Unit::Bytes), bytes)?;
    let store = authority.store_measures();
    page.count("changes_committed", "Changes committed", store.committed.read())?;
    let what = "Proposals of changes that were not committed, as when facts had changed meanwhile";
    page.count("commit_conflicts", what, store.refused.read())?;
    let what = "Proposals of changes that were refused by a bound of their company";
    let at_bounds = store.at_bounds().map(|(bound, count)| ([("bound", bound.name())], count));
    page.counts("company_bounds_met", what, at_bounds)?;
    page.level(
        "commit_queue_depth",
        "Orders that wait for the writer",
        None,
        store.waiting.read(),
    )?;
    page.times("commit_duration", "How long a batch of changes took", &read(&store.batches))?;
    let what = "How long the disk took to have a batch safe";
    page.times("commit_sync_duration", what, &read(&store.syncs))?;
    let what = "What is left of the disk, as of the last batch";
    page.level("disk_free", what, Some(&Unit::Bytes), store.room.read())?;
    let what = "What the store has reserved for changes that take away, as of the last batch";
    page.level("disk_reserve", what, Some(&Unit::Bytes), store.reserve.read())?;
    let what = "The last revision that every answer may rest on";
    page.level("published_revision", what, None, authority.published().0)
}
