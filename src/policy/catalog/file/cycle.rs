//! Cycles of implication between the scopes of a catalog file.

use std::collections::{BTreeMap, HashMap};

use super::ScopeEntry;
use crate::policy::scope::Scope;

/// The first cycle of implications, as the scopes on it, the first scope repeated at the end.
///
/// The search does not recurse, because a chain of implications can be as long as the file.
pub(super) fn find_cycle(scopes: &BTreeMap<Scope, ScopeEntry>) -> Option<Vec<&Scope>> {
    #[derive(Clone, Copy, PartialEq)]
    enum VisitState {
        InProgress,
        Done,
    }
    let mut seen: HashMap<&Scope, VisitState> = HashMap::with_capacity(scopes.len());
    for start in scopes.keys() {
        if seen.contains_key(start) {
            continue;
        }
        seen.insert(start, VisitState::InProgress);
        let mut path = vec![(start, 0)];
        while let Some((scope, next)) = path.last_mut() {
            let implied = scopes.get(*scope).and_then(|entry| entry.implies.get(*next));
            *next += 1;
            let Some(implied) = implied else {
                seen.insert(scope, VisitState::Done);
                path.pop();
                continue;
            };
            match seen.get(implied) {
                Some(VisitState::Done) => {}
                Some(VisitState::InProgress) => {
                    let from = path.iter().position(|(scope, _)| *scope == implied).unwrap_or(0);
                    let mut cycle: Vec<_> =
                        path.iter().skip(from).map(|(scope, _)| *scope).collect();
                    cycle.push(implied);
                    return Some(cycle);
                }
                None => {
                    seen.insert(implied, VisitState::InProgress);
                    path.push((implied, 0));
                }
            }
        }
    }
    None
}
