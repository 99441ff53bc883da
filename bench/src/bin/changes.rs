//! Changes: an admin who gives and takes scopes at a steady rate, beside the checks.
//!
//! Each lane has a credential of its own in the company that is being checked, and alternates a
//! grant with a revocation of it, waiting for each to be acknowledged: so every call is a real
//! change, and none fails because another came between.

use std::error::Error;
use std::time::{Duration, Instant};

use scopegate_bench::authorization_service_client::AuthorizationServiceClient;
use scopegate_bench::directory_service_client::DirectoryServiceClient;
use scopegate_bench::{CreateCredentialRequest, GrantScopesRequest, RevokeScopesRequest};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: changes --endpoint URL --company ID --scope NAME --rate PER_SECOND \
                     --milliseconds N --lanes N";

/// A connection on which every call presents this key, if any: that of `SCOPEGATE_KEY`.
type Wire = InterceptedService<Channel, BearerInterceptor>;

#[derive(Clone)]
struct BearerInterceptor(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// What to do, as asked.
#[derive(Clone)]
struct Plan {
    company: String,
    scope: String,
    rate: f64,
    time: Duration,
    lanes: u32,
}

/// One credential's changes; how many were acknowledged.
async fn lane(plan: Plan, number: u32, channel: Wire) -> Result<u64, Failure> {
    let credential_id = format!("changes-{number}");
    let new = CreateCredentialRequest {
        company_id: plan.company.clone(),
        credential_id: credential_id.clone(),
        ..CreateCredentialRequest::default()
    };
    let created = DirectoryServiceClient::new(channel.clone()).create_credential(new).await;
    if let Err(status) = created
        && status.code() != Code::AlreadyExists
    {
        return Err(status.into());
    }
    let revoke = RevokeScopesRequest {
        company_id: plan.company.clone(),
        credential_id: credential_id.clone(),
        scopes: vec![plan.scope.clone()],
        ..RevokeScopesRequest::default()
    };
    let grant = GrantScopesRequest {
        company_id: plan.company,
        credential_id,
        scopes: vec![plan.scope],
        ..GrantScopesRequest::default()
    };
    let mut client = AuthorizationServiceClient::new(channel);
    // An earlier run may have ended between a grant and its revocation.
    client.revoke_scopes(revoke.clone()).await?;
    let mut tick = interval(Duration::from_secs_f64(f64::from(plan.lanes) / plan.rate));
    // A lane that was held up makes up for it: the rate is a rate and not a limit.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + plan.time;
    let mut acknowledged = 0;
    while Instant::now() < end {
        tick.tick().await;
        if acknowledged % 2 == 0 {
            client.grant_scopes(grant.clone()).await?;
        } else {
            client.revoke_scopes(revoke.clone()).await?;
        }
        acknowledged += 1;
    }
    Ok(acknowledged)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let knob = |name: &str| {
        let place = words.iter().position(|word| word == name).ok_or(USAGE)?;
        words.get(place + 1).map(String::as_str).ok_or(USAGE)
    };
    let plan = Plan {
        company: knob("--company")?.to_owned(),
        scope: knob("--scope")?.to_owned(),
        rate: knob("--rate")?.parse()?,
        time: Duration::from_millis(knob("--milliseconds")?.parse()?),
        lanes: knob("--lanes")?.parse()?,
    };
    let endpoint = knob("--endpoint")?.to_owned();
    let channel = Channel::from_shared(endpoint)?.connect().await?;
    let key = std::env::var("SCOPEGATE_KEY").ok().filter(|key| !key.is_empty());
    let key = key.map(|key| format!("Bearer {key}").parse()).transpose()?;
    let channel = InterceptedService::new(channel, BearerInterceptor(key));
    let start = Instant::now();
    let lanes: Vec<_> = (0..plan.lanes)
        .map(|number| tokio::spawn(lane(plan.clone(), number, channel.clone())))
        .collect();
    let mut acknowledged = 0;
    for lane in lanes {
        acknowledged += lane.await??;
    }
    println!("{acknowledged} acknowledged in {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}
