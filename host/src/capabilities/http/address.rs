//! Which addresses outgoing requests never reach, or only by permission. Pure:
//! the same address always gets the same answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why an address is not for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// Somebody's own network or machine, or a form that may lead there.
    /// Reached only where the host's operator and the function's owner say so.
    Private,
    /// Nothing that a request could rightly go to, or a service that hands a
    /// machine's credentials to whoever asks. Never reached.
    Always,
}

use Forbidden::{Always, Private};

/// Ranges of IPv4, the first that matches decides: RFC 6890 and its successors,
/// and the addresses at which clouds serve credentials.
const RANGES_4: &[(Ipv4Addr, u32, Forbidden)] = &[
    // "This network"; Linux takes 0.0.0.0 for the machine itself.
    (Ipv4Addr::new(0, 0, 0, 0), 8, Always),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Private),
    // Metadata of one cloud, inside the shared address space.
    (Ipv4Addr::new(100, 100, 100, 200), 32, Always),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Private),
    // A cloud's own services, in the middle of a public range.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Always),
    // Link-local; 169.254.169.254 is the metadata of most clouds.
    (Ipv4Addr::new(169, 254, 0, 0), 16, Always),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Private),
    // Metadata of one cloud, inside the protocol assignments.
    (Ipv4Addr::new(192, 0, 0, 192), 32, Always),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Private),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Private),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Private),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Private),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Private),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Private),
    // Multicast, reserved, broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 4, Always),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Always),
];

/// Ranges of IPv6 that are not a form of an IPv4 address.
const RANGES_6: &[(Ipv6Addr, u32, Forbidden)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Always),
    (Ipv6Addr::LOCALHOST, 128, Private),
    // Metadata of two clouds, inside the unique local addresses.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Always),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Always),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Always),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Always),
    // Protocol assignments (Teredo, ORCHID) and documentation.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Private),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Private),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Private),
];

/// The public addresses of IPv6 are all in here; fc00::/7, fec0::/10 and the
/// rest are not.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether requests to an address are forbidden.
///
/// Every IPv6 form of an IPv4 address is at least private, whatever is in it: a
/// name that leads to one of them has no better reason than to get around this.
#[must_use]
pub fn forbidden(address: IpAddr) -> Option<Forbidden> {
    match address {
        IpAddr::V4(address) => forbidden_4(address),
        IpAddr::V6(address) => forbidden_6(address),
    }
}

fn forbidden_4(address: Ipv4Addr) -> Option<Forbidden> {
    let in_range = |base: Ipv4Addr, bits: u32| {
        let different = address.to_bits() ^ base.to_bits();
        different.leading_zeros() >= bits
    };
    RANGES_4.iter().find(|(base, bits, _)| in_range(*base, *bits)).map(|(.., forbidden)| *forbidden)
}

fn forbidden_6(address: Ipv6Addr) -> Option<Forbidden> {
    let listed = RANGES_6
        .iter()
        .find(|(base, bits, _)| in_range_6(address, *base, *bits))
        .map(|(.., forbidden)| *forbidden);
    if listed == Some(Always) {
        return listed;
    }
    // ::1 would be read as the IPv4 address 0.0.0.1.
    if address == Ipv6Addr::LOCALHOST {
        return listed;
    }
    let mut inside = embedded(address).into_iter().flatten().peekable();
    if inside.peek().is_some() {
        let never = inside.any(|address| forbidden_4(address) == Some(Always));
        return Some(if never { Always } else { Private });
    }
    let (base, bits) = GLOBAL_UNICAST;
    listed.or((!in_range_6(address, base, bits)).then_some(Private))
}

fn in_range_6(address: Ipv6Addr, base: Ipv6Addr, bits: u32) -> bool {
    let different = address.to_bits() ^ base.to_bits();
    different.leading_zeros() >= bits
}

/// The IPv4 addresses that an IPv6 address is a form of. Several where the form
/// has two of them, or where their place depends on a network's configuration.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = address.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    match address.segments() {
        // Mapped, compatible, and the translated form of SIIT.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [at(0), None],
        // NAT64, well-known prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [at(0), None],
        // NAT64, prefix for local use: at the end, or in RFC 6052's place for
        // this length, which steps over bits 64 to 71.
        [0x64, 0xff9b, 1, high, low, rest, ..] => {
            let low = (low << 8) | (rest >> 8);
            let split = Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
            [at(0), Some(split)]
        }
        // 6to4.
        [0x2002, ..] => [at(80), None],
        // Teredo: its server, and its client with all bits turned over.
        [0x2001, 0, ..] => [at(64), at(0).map(|client| !client)],
        _ => [None, None],
    }
}

/// Whether a destination is one of this process's own `listeners`, so that a
/// function would call its own host. `is_local` tells whether an address is one
/// of this machine's.
pub fn is_own(
    destination: SocketAddr,
    listeners: &[SocketAddr],
    is_local: impl Fn(IpAddr) -> bool,
) -> bool {
    let forms = forms(destination.ip());
    listeners.iter().filter(|listener| listener.port() == destination.port()).any(|listener| {
        let listens_everywhere = listener.ip().is_unspecified();
        forms.iter().flatten().any(|address| {
            *address == listener.ip().to_canonical() || (listens_everywhere && is_local(*address))
        })
    })
}

/// All addresses that a connection to `address` may arrive at.
fn forms(address: IpAddr) -> [Option<IpAddr>; 3] {
    match address {
        // Linux connects to itself.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => [Some(Ipv4Addr::LOCALHOST.into()), None, None],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => [Some(Ipv6Addr::LOCALHOST.into()), None, None],
        IpAddr::V4(_) => [Some(address), None, None],
        IpAddr::V6(inner) => {
            let [first, second] = embedded(inner);
            [Some(address), first.map(IpAddr::V4), second.map(IpAddr::V4)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Option<Forbidden> {
        forbidden(text.parse().unwrap())
    }

    #[test]
    fn every_range_is_forbidden_to_its_edges() {
        for (first, last, expected) in [
            ("0.0.0.0", "0.255.255.255", Always),
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", Private),
            ("127.0.0.0", "127.255.255.255", Private),
            ("169.254.0.0", "169.254.255.255", Always),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Private),
            ("192.0.2.0", "192.0.2.255", Private),
            ("192.88.99.0", "192.88.99.255", Private),
            ("192.168.0.0", "192.168.255.255", Private),
            ("198.18.0.0", "198.19.255.255", Private),
            ("198.51.100.0", "198.51.100.255", Private),
            ("203.0.113.0", "203.0.113.255", Private),
            ("224.0.0.0", "239.255.255.255", Always),
            ("240.0.0.0", "255.255.255.255", Always),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Always),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Always),
            ("100::", "100::ffff:ffff:ffff:ffff", Private),
            ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
        ] {
            // Teredo has addresses inside; the ends of its range are not public.
            for edge in [first, last] {
                let judged = judge(edge);
                assert!(judged == Some(expected) || edge == "2001::", "{edge}: {judged:?}");
                assert!(judged.is_some(), "{edge}");
            }
        }
    }

    #[test]
    fn single_addresses_that_serve_credentials_are_never_reached() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::",
            "0.0.0.0",
        ] {
            assert_eq!(judge(address), Some(Always), "{address}");
        }
        assert_eq!(judge("::1"), Some(Private));
    }

    #[test]
    fn public_addresses_beside_the_ranges_are_free() {
        for address in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "3ffe::1",
        ] {
            assert_eq!(judge(address), None, "{address}");
        }
    }

    #[test]
    fn ipv6_forms_of_ipv4_addresses_are_unwrapped() {
        for (address, expected) in [
            // 127.0.0.1 and 8.8.8.8, then 169.254.169.254, in every form.
            ("::ffff:127.0.0.1", Private),
            ("::ffff:8.8.8.8", Private),
            ("::ffff:169.254.169.254", Always),
            ("::ffff:0.0.0.0", Always),
            ("::127.0.0.1", Private),
            ("::169.254.169.254", Always),
            ("::ffff:0:127.0.0.1", Private),
            ("::ffff:0:169.254.169.254", Always),
            ("64:ff9b::127.0.0.1", Private),
            ("64:ff9b::8.8.8.8", Private),
            ("64:ff9b::169.254.169.254", Always),
            ("64:ff9b:1::127.0.0.1", Always),
            ("64:ff9b:1:0808:8:800:808:808", Private),
            ("64:ff9b:1:a9fe:a9:fe00:808:808", Always),
            ("64:ff9b:1:0808:8:800:a9fe:a9fe", Always),
            ("64:ff9b:2::8.8.8.8", Private),
            ("2002:7f00:1::", Private),
            ("2002:808:808::1", Private),
            ("2002:a9fe:a9fe::1", Always),
            ("2001:0:808:808::f7f7:f7f7", Private),
            ("2001:0:a9fe:a9fe::f7f7:f7f7", Always),
            ("2001:0:808:808::5601:5601", Always),
        ] {
            assert_eq!(judge(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn own_listeners_are_known_in_every_form() {
        let own = |destination: &str, listener: &str| {
            let listeners = [listener.parse().unwrap()];
            let is_local = |address: IpAddr| {
                address.is_loopback() || address == IpAddr::from([93, 184, 216, 34])
            };
            is_own(destination.parse().unwrap(), &listeners, is_local)
        };
        for (destination, listener) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080"),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080"),
            ("[64:ff9b::127.0.0.1]:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("[::1]:8080", "[::]:8080"),
            ("127.9.9.9:8080", "0.0.0.0:8080"),
            ("93.184.216.34:8080", "0.0.0.0:8080"),
            ("93.184.216.34:8080", "[::]:8080"),
            ("[2002:5db8:d822::]:8080", "0.0.0.0:8080"),
        ] {
            assert!(own(destination, listener), "{destination} {listener}");
        }
        for (destination, listener) in [
            ("127.0.0.1:8081", "127.0.0.1:8080"),
            ("127.0.0.1:8081", "0.0.0.0:8080"),
            ("127.0.0.2:8080", "127.0.0.1:8080"),
            ("8.8.8.8:8080", "0.0.0.0:8080"),
        ] {
            assert!(!own(destination, listener), "{destination} {listener}");
        }
    }
}
