//! What a route leads to: one revision, with all that an invocation of it needs.

use std::sync::Arc;

use crate::capabilities::http::Egress;
use crate::engine::loader::Slot;
use crate::model::function::GuestKind;
use crate::model::ids::{FunctionId, RevisionNumber};
use crate::model::limits::Limits;

use super::admission::Gate;

/// One revision of a function, ready to be invoked.
pub struct Target {
    /// The function.
    pub function: FunctionId,
    /// The revision.
    pub revision: RevisionNumber,
    /// How its guest is called.
    pub kind: GuestKind,
    /// Its component's place in the loader.
    pub slot: Arc<Slot>,
    /// What one invocation may use.
    pub limits: Limits,
    /// How many may run at once: shared by the function's revisions.
    pub gate: Arc<Gate>,
    /// The function's environment.
    pub environment: Arc<[(String, String)]>,
    /// Where its outgoing requests may go.
    pub egress: Arc<Egress>,
    /// Whether its responses carry `Server-Timing`.
    pub server_timing: bool,
}
