//! Restriction: takes a scope from a company, and asks all the while, on another connection,
//! whether a credential of it still has it.
//!
//! Prints when the first check was denied and when the call was answered, in microseconds since it
//! was sent, and how many credentials the answer counts.

use std::error::Error;
use std::time::{Duration, Instant};

use scopegate_bench::authorization_service_client::AuthorizationServiceClient;
use scopegate_bench::{CheckRequest, Decision, RestrictCompanyScopesRequest};
use tonic::transport::Channel;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: restriction --endpoint URL --company ID --credential ID --scope NAME";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let knob = |name: &str| {
        let place = words.iter().position(|word| word == name).ok_or(USAGE)?;
        words.get(place + 1).cloned().ok_or(USAGE)
    };
    let connect =
        async || Channel::from_shared(knob("--endpoint")?)?.connect().await.map_err(Failure::from);
    let (company_id, scopes) = (knob("--company")?, vec![knob("--scope")?]);
    let check = CheckRequest {
        company_id: company_id.clone(),
        credential_id: knob("--credential")?,
        scopes: scopes.clone(),
        ..CheckRequest::default()
    };
    let restrict = RestrictCompanyScopesRequest {
        company_id,
        scopes,
        acknowledge_impact: true,
        ..RestrictCompanyScopesRequest::default()
    };
    let mut asking = AuthorizationServiceClient::new(connect().await?);
    let mut restricting = AuthorizationServiceClient::new(connect().await?);
    for _ in 0..100 {
        let answer = asking.check(check.clone()).await?.into_inner();
        if answer.decision() != Decision::Allowed {
            return Err("the credential has not the scope to begin with".into());
        }
    }
    let start = Instant::now();
    let restricting = tokio::spawn(async move {
        let done = restricting.restrict_company_scopes(restrict).await;
        (done, start.elapsed())
    });
    let denied = loop {
        let answer = asking.check(check.clone()).await?.into_inner();
        if answer.decision() == Decision::Denied {
            break start.elapsed();
        }
        if start.elapsed() > Duration::from_secs(600) {
            return Err("the restriction never came".into());
        }
    };
    let (done, answered) = restricting.await?;
    let affected = done?.into_inner().affected_credential_count;
    println!(
        "{{\"denied_us\": {}, \"answered_us\": {}, \"affected\": {affected}}}",
        denied.as_micros(),
        answered.as_micros()
    );
    Ok(())
}
