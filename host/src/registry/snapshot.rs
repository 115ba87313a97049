//! From the control plane's records to what the data plane reads.

use std::sync::Arc;

use super::Functions;
use crate::capabilities::http::{Egress, HostEgress};
use crate::engine::loader::Loader;
use crate::invoke::admission::Gate;
use crate::invoke::target::Target;
use crate::model::function::{Function, Revision};
use crate::router::{Own, RouteTable};

/// Builds the routes of all functions. Targets that the previous table already
/// has are taken over: a revision never changes, and its gate is in use.
pub(super) fn build(
    functions: &Functions,
    previous: &RouteTable<Arc<Target>>,
    loader: &Loader,
    egress: &Arc<HostEgress>,
) -> RouteTable<Arc<Target>> {
    let mut table = RouteTable::default();
    for function in functions.values() {
        let own = own(function, previous.own(&function.id), loader, egress);
        if let (Some(target), Some(active)) = (&own.active, function.active_revision()) {
            for route in &active.spec.routes {
                table.insert(route, Arc::clone(target));
            }
        }
        table.insert_own(&function.id, own);
    }
    table
}

fn own(
    function: &Function,
    previous: Option<&Own<Arc<Target>>>,
    loader: &Loader,
    egress: &Arc<HostEgress>,
) -> Own<Arc<Target>> {
    let known = previous.map(|own| own.revisions.as_slice()).unwrap_or_default();
    let mut gates: Vec<Arc<Gate>> =
        known.iter().map(|(_, target)| Arc::clone(&target.gate)).collect();
    let mut revisions = Vec::with_capacity(function.revisions.len());
    for revision in &function.revisions {
        let kept = known.iter().find(|(number, target)| {
            // A function that was deleted and made again starts anew.
            *number == revision.number && target.kind == revision.kind
        });
        let target = match kept {
            Some((_, target)) => Arc::clone(target),
            None => Arc::new(target(function, revision, &mut gates, loader, egress)),
        };
        revisions.push((revision.number, target));
    }
    let active = function.active.and_then(|active| {
        let found = revisions.iter().find(|(number, _)| *number == active);
        found.map(|(_, target)| Arc::clone(target))
    });
    Own { active, revisions }
}

fn target(
    function: &Function,
    revision: &Revision,
    gates: &mut Vec<Arc<Gate>>,
    loader: &Loader,
    egress: &Arc<HostEgress>,
) -> Target {
    let limits = revision.spec.limits();
    // Revisions with the same bound share one gate, so that a deploy does not
    // double what the function may use.
    let same = gates.iter().find(|gate| gate.permits_max() == limits.concurrency).cloned();
    let gate = same.unwrap_or_else(|| {
        let gate = Arc::new(Gate::new(limits.concurrency));
        gates.push(Arc::clone(&gate));
        gate
    });
    let environment =
        revision.spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Target {
        function: function.id.clone(),
        revision: revision.number,
        kind: revision.kind,
        slot: loader.slot(revision.digest, revision.kind),
        limits,
        gate,
        environment,
        egress: Egress::new(&revision.spec.allow_hosts, egress),
        server_timing: revision.spec.server_timing.unwrap_or(true),
    }
}
