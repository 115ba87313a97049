//! From a granted destination to a connection: look up the name, check every
//! address, connect to one that was checked, and do TLS.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::egress::{Egress, Grant};
use super::tls;
use crate::model::allow::{Host, Scheme};

/// Addresses of a name that are considered.
const ADDRESSES_MAX: usize = 16;

/// A connection, with TLS or without.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to where a grant says, until `deadline`; returns the address, too.
///
/// # Errors
/// What failed: the name, the addresses, the connection, TLS, or the time.
pub(super) async fn connect(
    egress: &Egress,
    grant: &Grant,
    deadline: Instant,
) -> Result<(Box<dyn Transport>, SocketAddr), Error> {
    let mut addresses = addresses(egress, grant, deadline).await?;
    if addresses.is_empty() {
        return Err(Error::DestinationNotFound);
    }
    addresses.retain(|address| egress.may_reach(grant, *address));
    let (stream, address) = connect_tcp(&addresses, deadline).await?;
    // Without them only latency suffers, or the kernel: it goes on for many
    // minutes with what a closed connection has not sent yet.
    let _ = stream.set_nodelay(true);
    let unsent_ms = u32::try_from(egress.limits.request_time_max.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unsent_ms);
    if grant.destination.scheme == Scheme::Http {
        return Ok((Box::new(stream), address));
    }
    let name = tls::server_name(&grant.destination.host)?;
    let config = timeout_at(deadline, tls::config(egress));
    let config = config.await.map_err(|_| Error::ConnectionTimeout)??;
    let handshake = TlsConnector::from(config).connect(name, stream);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => Ok((Box::new(stream), address)),
        Ok(Err(error)) => Err(tls::handshake_error(&error)),
        Err(_) => Err(Error::ConnectionTimeout),
    }
}

/// All addresses of a destination, good and bad.
async fn addresses(
    egress: &Egress,
    grant: &Grant,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, Error> {
    let port = grant.destination.port;
    match &grant.destination.host {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
        Host::Name(name) => {
            let deadline = deadline.min(Instant::now() + egress.limits.lookup_time_max);
            let found = timeout_at(deadline, look_up(egress, name, port)).await;
            found.map_err(|_| Error::DnsTimeout)?
        }
    }
}

/// Asks the system's resolver. That blocks a thread for as long as it likes,
/// also when nobody waits for it any more: the thread itself holds the permit.
async fn look_up(egress: &Egress, name: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let permit = egress.lookup_permit().await?;
    let name = name.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let addresses = (name.as_str(), port).to_socket_addrs()?;
        Ok::<_, io::Error>(addresses.take(ADDRESSES_MAX).collect())
    });
    let dns_error = |error: String| Error::DnsError { rcode: Some(error), info_code: None };
    match lookup.await {
        Ok(found) => found.map_err(|error| dns_error(error.to_string())),
        Err(_) => Err(dns_error("the lookup was given up".to_owned())),
    }
}

/// Tries addresses one after the other, each for its share of the time.
async fn connect_tcp(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), Error> {
    // Stands if no address was left to try.
    let mut failure = Error::DestinationIpProhibited;
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left.checked_div(untried).unwrap_or(Duration::ZERO);
        untried -= 1;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => failure = connect_error(&error),
            Err(_) => failure = Error::ConnectionTimeout,
        }
    }
    Err(failure)
}

/// What a failed connection is to the guest.
fn connect_error(error: &io::Error) -> Error {
    let out_of_descriptors = [libc::EMFILE, libc::ENFILE].map(Some);
    if out_of_descriptors.contains(&error.raw_os_error()) {
        return Error::ConnectionLimitReached;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            Error::ConnectionTerminated
        }
        _ => Error::DestinationUnavailable,
    }
}
