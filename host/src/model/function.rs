//! Functions and their revisions, as storage keeps them.

use serde::{Deserialize, Serialize};

use super::ids::{Digest, FunctionId, RevisionNumber};
use super::spec::FunctionSpec;

/// How a guest is called. Found out once, at upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestKind {
    /// Exports `wasi:http/incoming-handler@0.2.x`.
    #[serde(rename = "http-0.2")]
    Http02,
    /// Exports `wasi:http/handler@0.3.x`.
    #[serde(rename = "http-0.3")]
    Http03,
    /// A core module that is a wasip1 command; speaks CGI.
    #[serde(rename = "cgi-0.1")]
    Cgi01,
    /// Exports `wasi:cli/run@0.2.x`; speaks CGI.
    #[serde(rename = "cgi-0.2")]
    Cgi02,
    /// Exports `wasi:cli/run@0.3.x`; speaks CGI.
    #[serde(rename = "cgi-0.3")]
    Cgi03,
}

impl GuestKind {
    /// The name used in the API and in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http02 => "http-0.2",
            Self::Http03 => "http-0.3",
            Self::Cgi01 => "cgi-0.1",
            Self::Cgi02 => "cgi-0.2",
            Self::Cgi03 => "cgi-0.3",
        }
    }
}

/// An immutable, numbered pair of component and spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Number within the function, from 1, never used twice.
    pub number: RevisionNumber,
    /// Digest of the upload as it came.
    pub digest: Digest,
    /// Size of the upload, in bytes.
    pub component_bytes: u64,
    /// How the guest is called.
    pub kind: GuestKind,
    /// The spec it was published with.
    pub spec: FunctionSpec,
    /// When it was published, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// A tenant's named, callable thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Tenant and name.
    pub id: FunctionId,
    /// The revision that gets the traffic. None while only revisions that were
    /// published without being activated exist.
    pub active: Option<RevisionNumber>,
    /// The revision that was active before, which `rollback` goes back to.
    pub previous: Option<RevisionNumber>,
    /// All revisions, oldest first.
    pub revisions: Vec<Revision>,
}

impl Function {
    /// The revision with this number.
    #[must_use]
    pub fn revision(&self, number: RevisionNumber) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.number == number)
    }

    /// The revision that gets the traffic.
    #[must_use]
    pub fn active_revision(&self) -> Option<&Revision> {
        self.active.and_then(|number| self.revision(number))
    }
}
