//! Service: answers a call, here if it is a check, and elsewhere if it may be long.
//!
//! Not here: the connection that it came by; see [`super::connection`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use super::calls::{Calls, Counted};
use super::follow::{Follow, Followed, Line};
use super::quota::Quota;
use super::refused_callers::RefusedCallers;
use super::tls::Tls;
use super::traces::{Asked, Trace};
use crate::grpc::access;
use crate::grpc::express::{self, Reply};
use crate::grpc::origin::Origin;
use crate::grpc::peer::Peer;
use crate::grpc::refused::{Refused, Why};
use crate::grpc::timely::Timely;
use crate::grpc::{Doors, status};
use crate::measure::steps;
use crate::policy::caller::{Caller, Role};
use crate::proto::CheckRequest;

/// The paths that go by the shortest way.
pub(super) const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
pub(super) const BATCH_CHECK: &str = "/scopegate.v1.AuthorizationService/BatchCheck";

/// The calls that anybody may make.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";
/// How many of them may be under way on each core.
const PROBES: usize = 1_000;

/// The calls whose messages come one after another, for as long as the caller likes.
const STREAMS: [&str; 2] =
    ["/scopegate.v1.DirectoryService/ImportCredentials", "/grpc.reflection."];

/// What every core answers with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) doors: Doors,
    /// Every call, by the generated services.
    pub(super) routes: Routes,
    /// What connections begin with, if it is not plain text.
    pub(super) tls: Option<Tls>,
    /// Where calls run that are no checks.
    pub(super) elsewhere: Handle,
    /// The most bytes of a message.
    pub(super) limit: usize,
    /// The most calls under way on a core.
    pub(super) in_flight: usize,
    /// How long a connection lives.
    pub(super) age: Option<Duration>,
    /// How long a peer may take for a handshake, or for a frame that it has begun.
    pub(super) handshake: Duration,
    /// How long a request may take to come as a whole.
    pub(super) request: Duration,
    /// How many calls a second that are no checks one key may make.
    pub(super) quota: Arc<Quota>,
    /// Who tells of callers that are refused.
    pub(super) refused: Arc<RefusedCallers>,
    /// What is counted on this core.
    pub(super) calls: Arc<Calls>,
    /// Who wants to know of single calls, if anybody does.
    pub(super) follow: Option<Arc<Follow>>,
}

impl Service {
    /// Who makes a call, if it may make it at all: before anything of its message is read.
    fn admit<B>(&self, request: &Request<B>, peer: &Peer) -> Result<Caller, Status> {
        let caller = self.doors.caller(request.headers(), peer)?;
        let roles = access::roles(request.uri().path()).ok_or_else(status::no_such_call)?;
        if !caller.roles().meets(roles) {
            return Err(Refused::caller(status::not_permitted(), Why::Role, &caller));
        }
        if let Caller::Key(key) = &caller
            && !roles.has(Role::Service)
        {
            self.quota.count(key, Instant::now()).map_err(status::too_often)?;
        }
        Ok(caller)
    }
}

/// Answers one call: a check here, anything else elsewhere.
///
/// The future of a check is moved about by whoever runs it, so it holds no more of the request
/// than its body; what is not a check is boxed.
pub(super) fn answer(
    service: Arc<Service>,
    peer: &Peer,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Reply>, Infallible>> + use<> {
    enum Call<F> {
        TooMany(usize),
        Refused(Box<Status>),
        Check(Option<Duration>, Caller, Incoming),
        Other(Pin<Box<F>>),
    }
    let path = request.uri().path();
    let deadline = express::deadline(request.headers());
    let is_health = path.starts_with(HEALTH);
    // Checks come first there.
    let place = access::PATHS.iter().position(|known| *known == path);
    let place = place.unwrap_or(access::PATHS.len());
    // Probes have a count of their own: they take no place from calls, nor calls from them.
    let (all, most) = match is_health {
        true => (&service.calls.probes, PROBES),
        false => (&service.calls.under_way, service.in_flight),
    };
    let (counted, under_way) = Counted::one_more(all);
    let call = if under_way > most {
        Call::TooMany(most)
    } else if is_health {
        // Asked for by anybody.
        let caller = Caller::Anonymous;
        Call::Other(Box::pin(call(Arc::clone(&service), request, deadline, caller, None)))
    } else {
        let followed = service.follow.as_ref().and_then(|follow| follow.look(request.headers()));
        match (service.admit(&request, peer), deadline) {
            (Err(status), _) => Call::Refused(Box::new(status)),
            (Ok(caller), Ok(deadline))
                if path == CHECK && followed.is_none() && express::takes(&request) =>
            {
                Call::Check(deadline, caller, request.into_body())
            }
            (Ok(caller), deadline) => {
                let service = Arc::clone(&service);
                Call::Other(Box::pin(call(service, request, deadline, caller, followed)))
            }
        }
    };
    let address = peer.address;
    async move {
        let _counted = counted;
        let response = match call {
            Call::Check(deadline, caller, body) => {
                let decide = async |check| {
                    service.doors.decide(service.doors.asked_by(caller, check)?, None).await
                };
                let body = Timely::new(body, service.request);
                express::unary(deadline, body, service.limit, decide).await
            }
            Call::Other(call) => call.await,
            Call::TooMany(most) => status::too_much(most).into_http(),
            Call::Refused(status) => status.into_http(),
        };
        let code = service.calls.answered(place, &response);
        service.refused.call(address, place, Refused::of(code, &response));
        Ok(response)
    }
}

/// Answers a call that is no check of one thing, or one that is followed.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    caller: Caller,
    followed: Option<Followed>,
) -> Response<Reply> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    let line = Line::begin(&request, &caller, followed.as_ref());
    let trace =
        followed.as_ref().and_then(|followed| followed.trace(request.uri().path(), &caller));
    let origin = followed.map(|followed| followed.origin);
    let steps = trace.as_ref().map(Trace::steps);
    let answered = run(&service, request, deadline, caller, origin, trace.as_ref());
    let response = steps::noted(steps, answered).await;
    if let Some(trace) = trace {
        trace.answered(&response);
    }
    if let Some(line) = line {
        line.write(&response);
    }
    response
}

/// Answers a call, here or elsewhere.
async fn run(
    service: &Service,
    mut request: Request<Incoming>,
    deadline: Option<Duration>,
    caller: Caller,
    origin: Option<Arc<Origin>>,
    trace: Option<&Trace>,
) -> Response<Reply> {
    let doors = &service.doors;
    let path = request.uri().path();
    if path == CHECK && express::takes(&request) {
        let decide = async |check: CheckRequest| {
            let asked = trace.map(|_| Asked::of(&check));
            let answer = doors.decide(doors.asked_by(caller, check)?, origin.as_ref()).await?;
            if let (Some(trace), Some(asked)) = (trace, asked) {
                trace.decided(asked, &answer);
            }
            Ok(answer)
        };
        let body = Timely::new(request.into_body(), service.request);
        return express::unary(deadline, body, service.limit, decide).await;
    }
    if path == BATCH_CHECK && express::takes(&request) {
        let decide = async |batch| {
            let answer = doors.decide_all(doors.asked_by(caller, batch)?, origin.as_ref()).await?;
            if let Some(trace) = trace {
                trace.decided_all(&answer);
            }
            Ok(answer)
        };
        let body = Timely::new(request.into_body(), service.request);
        return express::unary(deadline, body, service.limit, decide).await;
    }
    request.extensions_mut().insert(caller);
    if let Some(origin) = origin {
        request.extensions_mut().insert(origin);
    }
    run_elsewhere(service, request, deadline).await
}

/// Has the generated services answer.
async fn run_elsewhere(
    service: &Service,
    request: Request<Incoming>,
    deadline: Option<Duration>,
) -> Response<Reply> {
    let (routes, time) = (service.routes.clone(), service.request);
    let running = AbortOnDropHandle::new(service.elsewhere.spawn(steps::carried(async move {
        let request = if STREAMS.iter().any(|path| request.uri().path().starts_with(path)) {
            request.map(tonic::body::Body::new)
        } else {
            request.map(|body| tonic::body::Body::new(Timely::new(body, time)))
        };
        let answered = routes.oneshot(request);
        match deadline {
            None => answered.await,
            Some(time) => match tokio::time::timeout(time, answered).await {
                Ok(answered) => answered,
                Err(_) => Ok(status::too_late().into_http()),
            },
        }
    })));
    match running.await {
        Ok(Ok(response)) => status::in_our_words(response).map(Reply::Other),
        Ok(Err(never)) => match never {},
        // The call panicked, or the runtime ends.
        Err(_) => status::broken().into_http(),
    }
}
