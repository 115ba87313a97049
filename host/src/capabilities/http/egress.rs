//! Where the outgoing requests of a function may go, and what they may use.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Uri;
use rustls::ClientConfig;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::Error;

use super::address::{self, Forbidden};
use super::hops::HopKey;
use super::pool::{HOST_IDLE_MAX, Pool};
use super::tls;
use crate::model::allow::{AllowHost, AllowedHosts, Host, HostError, Scheme, parse_port};

/// Connections of one revision at the same time.
const CONNECTIONS_MAX: usize = 512;
/// Connections of all functions at the same time: each is a file descriptor.
const HOST_CONNECTIONS_MAX: usize = 4096;
/// Names of one revision that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;
/// Names that are looked up at the same time. Each holds a thread of the pool
/// that the host's files are read with, for as long as the resolver likes.
const HOST_LOOKUPS_MAX: usize = 64;

/// What one invocation's outgoing requests may use.
#[derive(Debug, Clone, Copy)]
pub struct EgressLimits {
    /// Requests of one invocation, refused ones included.
    pub requests_max: u32,
    /// One request, from its start to the head of its response. The invocation's
    /// own time bounds the rest.
    pub request_time_max: Duration,
    /// Silence within the body of a response.
    pub silence_time_max: Duration,
    /// Looking up a name: part of `connect_time_max`.
    pub lookup_time_max: Duration,
    /// Up to a connection that is ready for the request, TLS included.
    pub connect_time_max: Duration,
    /// Body of one response, in bytes.
    pub response_bytes_max: u64,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            requests_max: 32,
            request_time_max: Duration::from_secs(10),
            silence_time_max: Duration::from_secs(10),
            lookup_time_max: Duration::from_secs(2),
            connect_time_max: Duration::from_secs(5),
            response_bytes_max: 16 << 20,
        }
    }
}

/// Where this host listens itself: the real addresses.
#[derive(Debug, Clone, Default)]
pub struct OwnListeners {
    /// The data plane's. Functions that call each other are as private as any
    /// other service on this machine.
    pub data: Vec<SocketAddr>,
    /// The admin API's, which nothing reaches.
    pub admin: Vec<SocketAddr>,
}

/// What holds for the outgoing requests of all functions of a host.
#[derive(Debug)]
pub struct HostEgress {
    /// Whether functions may reach private addresses that they name.
    private: bool,
    own: OwnListeners,
    pub(super) hops: Arc<HopKey>,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    idle: Arc<Semaphore>,
    pub(super) roots: tls::Roots,
}

impl HostEgress {
    /// `private`: whether a function may reach a private address that its
    /// `allow_hosts` names as an address, or as `localhost`. `hops` counts calls
    /// of functions by functions.
    #[must_use]
    pub fn new(private: bool, own: OwnListeners, hops: Arc<HopKey>) -> Arc<Self> {
        Arc::new(Self {
            private,
            own,
            hops,
            connections: Arc::new(Semaphore::new(HOST_CONNECTIONS_MAX)),
            lookups: Arc::new(Semaphore::new(HOST_LOOKUPS_MAX)),
            idle: Arc::new(Semaphore::new(HOST_IDLE_MAX)),
            roots: tls::Roots::default(),
        })
    }
}

/// What a function's outgoing requests may reach and use.
#[derive(Debug)]
pub struct Egress {
    allow: Box<[AllowHost]>,
    pub(super) host: Arc<HostEgress>,
    pub(super) limits: EgressLimits,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    pub(super) pool: Arc<Pool>,
    /// Of its own, so that no function resumes another's TLS session.
    pub(super) tls: OnceCell<Arc<ClientConfig>>,
}

/// The right to hold a connection, or to look up a name.
pub(super) struct Permit {
    _revision: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

/// That a request may be sent, and where to.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) destination: Destination,
    /// The entry names the place as an address.
    names_address: bool,
}

impl Egress {
    /// What a function without `allow_hosts` has: the same for all of them.
    #[must_use]
    pub fn nothing() -> Arc<Self> {
        static NOTHING: LazyLock<Arc<Egress>> = LazyLock::new(|| {
            let host = HostEgress::new(false, OwnListeners::default(), Arc::new(HopKey::unused()));
            Arc::new(Egress::with_limits(&[], &host, EgressLimits::default()))
        });
        Arc::clone(&NOTHING)
    }

    /// What the entries of a function's `allow_hosts` open.
    #[must_use]
    pub fn new(allow: &[AllowHost], host: &Arc<HostEgress>) -> Arc<Self> {
        if allow.is_empty() {
            return Self::nothing();
        }
        Arc::new(Self::with_limits(allow, host, EgressLimits::default()))
    }

    pub(super) fn with_limits(
        allow: &[AllowHost],
        host: &Arc<HostEgress>,
        limits: EgressLimits,
    ) -> Self {
        Self {
            allow: allow.into(),
            host: Arc::clone(host),
            limits,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            pool: Pool::new(Arc::clone(&host.idle)),
            tls: OnceCell::new(),
        }
    }

    /// Whether an entry means `destination`.
    pub(super) fn grant(&self, destination: &Destination) -> Option<Grant> {
        let Destination { scheme, host, port } = destination;
        let mut meant =
            self.allow.iter().filter(|entry| entry.allows(*scheme, host, *port)).peekable();
        meant.peek()?;
        Some(Grant {
            destination: destination.clone(),
            names_address: meant.any(AllowHost::names_an_address),
        })
    }

    /// Whether a granted request may go to this address, which is one of its
    /// destination's.
    pub(super) fn may_reach(&self, grant: &Grant, address: SocketAddr) -> bool {
        let own = &self.host.own;
        if address::is_own(address, &own.admin, is_local) {
            return false;
        }
        match address::forbidden(address.ip()) {
            None if !address::is_own(address, &own.data, is_local) => true,
            Some(Forbidden::Always) => false,
            None | Some(Forbidden::Private) => {
                // `localhost` is a name all the same, and names can lie.
                let is_as_named = match &grant.destination.host {
                    Host::Address(named) => *named == address.ip(),
                    Host::Name(_) => address.ip().is_loopback(),
                };
                self.host.private && grant.names_address && is_as_named
            }
        }
    }

    /// The right to hold a connection. Nobody waits for it: what is in the way
    /// may be the waiting invocation's own.
    ///
    /// # Errors
    /// When the revision or the host has all the connections it may have.
    pub(super) fn connection_permit(&self) -> Result<Permit, Error> {
        let take = |semaphore: &Arc<Semaphore>| {
            let permit = Arc::clone(semaphore).try_acquire_owned();
            permit.map_err(|_| Error::ConnectionLimitReached)
        };
        Ok(Permit { _revision: take(&self.connections)?, _host: take(&self.host.connections)? })
    }

    /// The right to look up a name; waits for it.
    ///
    /// # Errors
    /// Never: nothing closes a semaphore of ours.
    pub(super) async fn lookup_permit(&self) -> Result<Permit, Error> {
        let closed = |_| Error::ConnectionLimitReached;
        let revision = Arc::clone(&self.lookups).acquire_owned().await;
        let host = Arc::clone(&self.host.lookups).acquire_owned().await;
        Ok(Permit { _revision: revision.map_err(closed)?, _host: host.map_err(closed)? })
    }
}

/// Whether an address is one of this machine's: only those can be bound. Sends
/// nothing.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Destination {
    /// # Errors
    /// When the URL has no destination, or names it in a way that not everybody
    /// reads the same.
    pub(super) fn of(uri: &Uri) -> Result<Self, Error> {
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(Error::HttpRequestUriInvalid),
        };
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        // What stands before an '@' can look like a host.
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = authority.host().parse().map_err(|error| match error {
            HostError::Numeric => Error::DestinationIpProhibited,
            HostError::Bracketed | HostError::Name => Error::HttpRequestUriInvalid,
        })?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(scheme.default_port()),
            Some(rest) => rest.strip_prefix(':').and_then(parse_port),
            None => None,
        };
        let port = port.ok_or(Error::HttpRequestUriInvalid)?;
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for Destination {
    /// As the entry of `allow_hosts` that would open it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = AllowHost {
            scheme: self.scheme,
            hosts: AllowedHosts::One(self.host.clone()),
            port: self.port,
        };
        entry.fmt(formatter)
    }
}

#[cfg(test)]
mod tests;
