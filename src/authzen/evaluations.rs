//! Evaluations: reads a request with one question or several, and puts the answers together (AuthZEN
//! section 7).
//!
//! Not here: where a batch ends; see [`crate::authority::batch`].

use std::collections::HashSet;

use serde::Serialize;

use super::base::Base;
use super::decision::Decision;
use super::entity::{Malformed, Subject};
use super::evaluation::Defaults;
use super::json::Value;
use super::question::{NotAskable, Question, named_company};
use super::refusal::Refusal;
use crate::authority::Session;
use crate::authority::batch::BatchEnd;
use crate::authority::error::AuthorityError;
use crate::policy::query::Request;
use crate::policy::revision::Revision;
use crate::wire::validate::{Auds, MAX_CHECKS, MAX_CLIENT_CREDENTIALS};

/// After this many questions other tasks run.
const YIELD_EVERY: usize = 50;

/// What a request asks.
pub(super) enum Questions<'a> {
    /// One question, whose decision is the answer.
    One(Question<'a>),
    /// Several, some of which may be malformed.
    Several {
        items: Vec<Result<Question<'a>, Malformed>>,
        end: BatchEnd,
        /// The subjects for which nothing is asked: those of malformed items, and the default.
        others: Vec<Subject<'a>>,
    },
}

/// A decision, or several.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Decided {
    One(Decision),
    Several(DecisionList),
}

/// The decisions on several questions.
#[derive(Serialize)]
pub(super) struct DecisionList {
    evaluations: Vec<Decision>,
}

impl<'a> Questions<'a> {
    /// Reads a request for one evaluation.
    ///
    /// # Errors
    /// It is malformed.
    pub(super) fn read_one(request: Value<'a>) -> Result<Self, Refusal> {
        Ok(Self::One(Defaults::read(request)?.question(&Defaults::default())?))
    }

    /// Reads a request for several evaluations.
    ///
    /// # Errors
    /// It is malformed, except for an item of it, or has too many items or bearer tokens.
    pub(super) fn read(request: Value<'a>) -> Result<Self, Refusal> {
        let defaults = Defaults::read(request)?;
        let [items, options] = request.members(&["evaluations", "options"]).unwrap_or_default();
        let end = end(options)?;
        let (items, count) = match items {
            None => (vec![], 0),
            Some(items) => items
                .items(MAX_CHECKS)
                .ok_or(Malformed("`evaluations` must be an array".to_owned()))?,
        };
        if count > MAX_CHECKS {
            return Err(Refusal::too_large(format!(
                "`evaluations` has {count} items, the limit is {MAX_CHECKS}"
            )));
        }
        if items.is_empty() {
            return Ok(Self::One(defaults.question(&Defaults::default())?));
        }
        let values = items;
        let question = |item: &Value<'a>| Defaults::read(*item)?.question(&defaults);
        let items: Vec<_> = values.iter().map(question).collect();
        let malformed = values.iter().zip(&items).filter(|(_, question)| question.is_err());
        let unasked = malformed.map(|(item, _)| *item).chain([request]);
        let others = unasked.filter_map(|object| {
            let [subject] = object.members(&["subject"])?;
            Subject::read(subject?).ok()
        });
        let others = others.collect();
        let contexts = items.iter().flatten().map(|question| &question.context);
        let tokens = contexts.filter_map(|context| context.bearer_token).map(Value::text);
        let tokens = tokens.collect::<HashSet<_>>().len();
        if tokens > MAX_CLIENT_CREDENTIALS {
            return Err(Refusal::too_large(format!(
                "`evaluations` has {tokens} distinct bearer tokens, the limit is \
                 {MAX_CLIENT_CREDENTIALS}"
            )));
        }
        Ok(Self::Several { items, end, others })
    }

    fn all(&self) -> impl Iterator<Item = &Question<'a>> {
        let (one, several) = match self {
            Self::One(question) => (Some(question), None),
            Self::Several { items, .. } => (None, Some(items)),
        };
        one.into_iter().chain(several.into_iter().flatten().flatten())
    }

    /// The companies that the request names, each once, also where nothing is asked of them. The texts may
    /// be no ids.
    pub(super) fn companies<'q>(&'q self, base: &'q Base) -> HashSet<&'q str> {
        let others: &[Subject<'a>] = match self {
            Self::One(_) => &[],
            Self::Several { others, .. } => others,
        };
        let subjects = self.all().map(|question| &*question.subject).chain(others);
        subjects.filter_map(|subject| named_company(base, subject)).collect()
    }

    /// About how many bytes of memory the requests of the questions take.
    pub(super) fn weight(&self) -> usize {
        self.all().map(Question::weight).sum()
    }

    /// The decisions, all at one revision.
    ///
    /// # Errors
    /// The store cannot answer.
    pub(super) async fn decide(
        self,
        session: &Session<'_>,
        base: &Base,
    ) -> Result<Decided, Refusal> {
        match self {
            Self::One(question) => Ok(Decided::One(one(session, base, &question).await?)),
            Self::Several { items, end, .. } => {
                let evaluations = several(session, base, items, end).await?;
                Ok(Decided::Several(DecisionList { evaluations }))
            }
        }
    }
}

/// After which item the evaluations end.
fn end(options: Option<Value<'_>>) -> Result<BatchEnd, Malformed> {
    let Some(options) = options else { return Ok(BatchEnd::Last) };
    let [semantic] = options
        .members(&["evaluations_semantic"])
        .ok_or_else(|| Malformed("`options` must be an object".to_owned()))?;
    let Some(semantic) = semantic else { return Ok(BatchEnd::Last) };
    match semantic.string().as_deref() {
        Some("execute_all") => Ok(BatchEnd::Last),
        Some("deny_on_first_deny") => Ok(BatchEnd::FirstDenied),
        Some("permit_on_first_permit") => Ok(BatchEnd::FirstAllowed),
        _ => Err(Malformed(
            "`options.evaluations_semantic` must be `execute_all`, `deny_on_first_deny` or \
             `permit_on_first_permit`"
                .to_owned(),
        )),
    }
}

async fn one(
    session: &Session<'_>,
    base: &Base,
    question: &Question<'_>,
) -> Result<Decision, Refusal> {
    let request = {
        let auds: Auds<'_> = &|aud| session.audience_by_aud(aud);
        question.request(base, auds)
    };
    let mut request = match request {
        Ok(request) => request,
        Err(not_askable) => return Ok(not_askable.into()),
    };
    match session.check(&mut request, Revision::ZERO).await {
        Ok(answer) => Ok(Decision::of(answer)),
        Err(AuthorityError::Audience(error)) => Ok(Decision::not_askable(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn several(
    session: &Session<'_>,
    base: &Base,
    items: Vec<Result<Question<'_>, Malformed>>,
    end: BatchEnd,
) -> Result<Vec<Decision>, Refusal> {
    // The decision of an item that is not asked, and none of one that is.
    let mut unasked: Vec<Option<Decision>> = Vec::with_capacity(items.len());
    let mut requests: Vec<Request> = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        let request = match item {
            Ok(question) => {
                let auds: Auds<'_> = &|aud| session.audience_by_aud(aud);
                question.request(base, auds)
            }
            Err(Malformed(message)) => Err(NotAskable(message)),
        };
        match request {
            Ok(request) => {
                requests.push(request);
                unasked.push(None);
            }
            Err(not_askable) => {
                unasked.push(Some(not_askable.into()));
                if end == BatchEnd::FirstDenied {
                    break;
                }
            }
        }
        if n % YIELD_EVERY == YIELD_EVERY - 1 {
            tokio::task::yield_now().await;
        }
    }
    let answers = match requests.is_empty() {
        true => vec![],
        false => session.evaluate_each(&mut requests, end).await?.0,
    };
    let mut answers = answers.into_iter();
    let mut decisions = Vec::with_capacity(unasked.len());
    for decision in unasked {
        let decision = match decision {
            Some(decision) => decision,
            None => match answers.next() {
                Some(Ok(answer)) => Decision::of(answer),
                Some(Err(error)) => Decision::not_askable(error.to_string()),
                None => break,
            },
        };
        let is_last = match end {
            BatchEnd::Last => false,
            BatchEnd::FirstDenied => !decision.is_allowed(),
            BatchEnd::FirstAllowed => decision.is_allowed(),
        };
        decisions.push(decision);
        if is_last {
            break;
        }
    }
    Ok(decisions)
}
