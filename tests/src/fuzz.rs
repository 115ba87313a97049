//! What must hold of any bytes whatever: one definition, for the bounded runs of
//! `it::properties` and for the endless ones of `tests/fuzz`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use whit::capabilities::http::address::{forbidden, is_own};
use whit::ingress::framing::Framing;
use whit::invoke::cgi::{FIELDS_MAX, Head, HeadReader};
use whit::model::allow::{AllowHost, Host};
use whit::model::route::{RoutePattern, Segment};
use whit::model::spec::{FunctionSpec, Manifest};
use whit::router::RouteTable;

/// A check of any bytes, which panics where something does not hold.
pub type Target = fn(&[u8]);

/// All of them, by the names of their folders in `tests/fuzz/seeds`.
pub const TARGETS: [(&str, Target); 5] =
    [("spec", spec), ("router", router), ("cgi", cgi), ("address", address), ("framing", framing)];

/// A `whit.toml`, and a spec in JSON: what is taken is within its bounds and
/// comes back as it was.
///
/// # Panics
/// Where that does not hold; so do all of these.
pub fn spec(data: &[u8]) {
    let again = |spec: &FunctionSpec| {
        spec.validate().expect("what was taken is valid");
        let text = serde_json::to_vec(spec).expect("a spec can be written");
        assert_eq!(&FunctionSpec::from_json(&text).expect("it is taken again"), spec);
    };
    if let Ok(spec) = FunctionSpec::from_json(data) {
        again(&spec);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(manifest) = Manifest::from_toml(text) {
        manifest.functions.values().for_each(|entry| again(&entry.spec));
    }
}

/// Lines: routes as a spec has them, and `? METHOD HOST PATH`. What is found
/// matches, and what matches is found.
///
/// # Panics
/// See [`spec`].
pub fn router(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut table = RouteTable::default();
    let mut routes: Vec<RoutePattern> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('?')) {
        let Ok(route) = line.parse::<RoutePattern>() else { continue };
        let again: RoutePattern = route.to_string().parse().expect("it reads what it writes");
        assert_eq!(again, route);
        // A host refuses the second claim.
        if routes.iter().all(|other| other.key() != route.key()) {
            table.insert(&route, routes.len());
            routes.push(route);
        }
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("? ")) {
        let mut words = line.splitn(3, ' ');
        let (Some(method), Some(host), Some(path)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let matching = |route: &RoutePattern| matches(route, method, host, path);
        match table.find(host, method, path) {
            Some(found) => {
                let route = routes.get(found.target).expect("one that was inserted");
                assert!(matching(route), "{line:?} is not {route}");
            }
            None => {
                let missed = routes.iter().find(|route| matching(route));
                assert!(missed.is_none(), "{line:?} is {missed:?}");
            }
        }
    }
}

/// The rule, without a table.
fn matches(route: &RoutePattern, method: &str, host: &str, path: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut rest = Some(path);
    for segment in &route.segments {
        let own = match segment {
            Segment::Wildcard(_) => {
                rest = None;
                break;
            }
            _ => rest.map(|rest| rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)))),
        };
        let Some((own, after)) = own else { return false };
        let is_meant = match segment {
            Segment::Literal(text) => **text == *own,
            _ => !own.is_empty(),
        };
        if !is_meant {
            return false;
        }
        rest = after;
    }
    rest.is_none()
        && route.method.as_deref().is_none_or(|own| own == method)
        && route.authority.as_deref().is_none_or(|own| own == host || own == name)
}

/// What a CGI program prints, in pieces of the size of the first byte: the same
/// as in one piece, and never more than a head may be.
///
/// # Panics
/// See [`spec`].
pub fn cgi(data: &[u8]) {
    let Some((size, output)) = data.split_first().filter(|(_, output)| output.len() < 16 << 10)
    else {
        return;
    };
    let read = |size: usize| -> Result<Option<Head>, ()> {
        let mut reader = HeadReader::default();
        let mut at = 0;
        for piece in output.chunks(size) {
            at += piece.len();
            if let Some((status, headers, body)) = reader.push(piece).map_err(|_| ())? {
                let body = [&body[..], &output[at..]].concat();
                return Ok(Some((status, headers, body.into())));
            }
        }
        Ok(None)
    };
    let whole = read(output.len().max(1));
    assert_eq!(read(usize::from(*size).max(1)), whole);
    if let Ok(Some((status, headers, body))) = whole {
        assert!((200..600).contains(&status.as_u16()) && output.ends_with(&body));
        // And the type that is added where there is none.
        assert!(headers.len() <= FIELDS_MAX + 1);
        let of_the_connection = ["connection", "transfer-encoding", "keep-alive", "upgrade"];
        assert!(of_the_connection.iter().all(|name| !headers.contains_key(*name)));
    }
}

/// An address, in whatever form it comes: what is private as IPv4 stays so in
/// all forms of IPv6, and no text is both a name and an address.
///
/// # Panics
/// See [`spec`].
pub fn address(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<4>() {
        let inner = Ipv4Addr::from(*bytes);
        let refused = forbidden(inner.into()).is_some();
        assert!(refused || !(inner.is_loopback() || inner.is_private() || inner.is_link_local()));
        assert!(refused || !(inner.is_multicast() || inner.is_broadcast()));
        let [a, b, c, d] = *bytes;
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for form in [
            inner.to_ipv6_mapped(),
            inner.to_ipv6_compatible(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 0),
        ] {
            assert!(forbidden(form.into()).is_some(), "{form}");
            let listener = SocketAddr::from((inner, 80));
            let reached = form.to_ipv4_mapped().is_some();
            assert!(!reached || is_own(SocketAddr::from((form, 80)), &[listener], |_| false));
        }
    }
    if let Some(bytes) = data.first_chunk::<16>() {
        let address = Ipv6Addr::from(*bytes);
        let is_global_unicast = address.segments()[0] >> 13 == 1;
        assert!(is_global_unicast || forbidden(address.into()).is_some(), "{address}");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(host @ Host::Name(_)) = text.parse::<Host>() {
        assert!(text.parse::<IpAddr>().is_err(), "{host:?}");
        let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{host:?}");
    }
    if let Ok(entry) = text.parse::<AllowHost>() {
        assert_eq!(entry.to_string().parse::<AllowHost>().as_ref(), Ok(&entry));
    }
}

/// HTTP/1 in pieces of the size of the first byte: the same as in one piece, and
/// at most the end of one line is spoilt.
///
/// # Panics
/// See [`spec`].
pub fn framing(data: &[u8]) {
    let Some((size, request)) = data.split_first() else { return };
    let check = |size: usize| {
        let mut bytes = request.to_vec();
        let mut framing = Framing::new();
        bytes.chunks_mut(size).for_each(|piece| framing.check(piece));
        (bytes, framing.inside_a_head())
    };
    let whole = check(request.len().max(1));
    assert_eq!(check(usize::from(*size).max(1)), whole);
    let mut changed = request.iter().zip(&whole.0).filter(|(before, after)| before != after);
    assert!(changed.next().is_none_or(|change| change == (&b'\n', &0)));
    assert_eq!(changed.count(), 0);
}
