//! What kind of address an IP address is: public, private unless opened, or never to be connected to.
//!
//! Sources: the IANA special-purpose registries (RFC 6890 and successors), the clouds' metadata addresses. An IPv6 address
//! that carries an IPv4 address (mapped, NAT64, 6to4, Teredo …) is as restricted as the worse of the two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Kinds of addresses, from harmless to forbidden. The text says what the address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reachable by anyone.
    Public,
    /// Special-use: only when the operator opened it.
    Private(&'static str),
    /// Never, whatever the operator opened.
    Forbidden(&'static str),
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

const FORBIDDEN_V4: [(Ipv4Net, &str); 5] = [
    (v4(0, 0, 0, 0, 8), "the unspecified network"),
    (v4(169, 254, 0, 0, 16), "link-local or instance metadata"),
    (v4(100, 100, 100, 200, 32), "instance metadata"),
    (v4(168, 63, 129, 16, 32), "the cloud platform's own channel"),
    (v4(192, 0, 0, 192, 32), "instance metadata"),
];

const PRIVATE_V4: [(Ipv4Net, &str); 13] = [
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "carrier-grade private"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "reserved for documentation"),
    (v4(192, 88, 99, 0, 24), "a retired relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "reserved for benchmarks"),
    (v4(198, 51, 100, 0, 24), "reserved for documentation"),
    (v4(203, 0, 113, 0, 24), "reserved for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

const FORBIDDEN_V6: [(Ipv6Net, &str); 4] = [
    (v6([0; 8], 128), "the unspecified address"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 96), "instance metadata"),
    (v6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254], 128), "instance metadata"),
];

/// Special-use networks inside the global unicast range; everything outside that range is private anyway.
const PRIVATE_V6: [(Ipv6Net, &str); 4] = [
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved for protocols"),
    (v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), "reserved for documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a retired relay"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "reserved for documentation"),
];

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const NAT64: Ipv6Net = v6([0x0064, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x0064, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// IPv4-compatible, `::a.b.c.d` (RFC 4291, retired).
const COMPATIBLE: Ipv6Net = v6([0; 8], 96);
/// IPv4-translated, `::ffff:0:a.b.c.d` (RFC 2765).
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

/// The address the system really connects to: IPv4-mapped IPv6 is IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The kind of `address`, the worst of itself and of every IPv4 address inside it.
pub fn kind(address: IpAddr) -> Kind {
    match canonical(address) {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => embedded(address).into_iter().flatten().map(kind_v4).fold(kind_v6(address), Kind::max),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    if let Some((_, what)) = FORBIDDEN_V4.iter().find(|(net, _)| net.contains(&address)) {
        return Kind::Forbidden(what);
    }
    PRIVATE_V4.iter().find(|(net, _)| net.contains(&address)).map_or(Kind::Public, |(_, what)| Kind::Private(what))
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if let Some((_, what)) = FORBIDDEN_V6.iter().find(|(net, _)| net.contains(&address)) {
        return Kind::Forbidden(what);
    }
    if NAT64.contains(&address) {
        return Kind::Public;
    }
    if !GLOBAL_UNICAST.contains(&address) {
        return Kind::Private(if address.is_loopback() { "loopback" } else { "not globally routed" });
    }
    PRIVATE_V6.iter().find(|(net, _)| net.contains(&address)).map_or(Kind::Public, |(_, what)| Kind::Private(what))
}

/// The IPv4 addresses that `address` carries; a Teredo address has two (server and, inverted, client).
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if [COMPATIBLE, TRANSLATED, NAT64, NAT64_LOCAL].iter().any(|net| net.contains(&address)) && !address.is_loopback() {
        [Some(join(s[6], s[7])), None]
    } else if SIX_TO_FOUR.contains(&address) {
        [Some(join(s[1], s[2])), None]
    } else if TEREDO.contains(&address) {
        [Some(join(s[2], s[3])), Some(join(!s[6], !s[7]))]
    } else {
        [None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_is_known() {
        let public = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.0.1.1", "198.20.0.1"];
        let public_v6 = ["2606:4700::1111", "2a00:1450:4001::", "64:ff9b::808:808", "::ffff:1.1.1.1"];
        for text in public.iter().chain(&public_v6) {
            assert_eq!(kind(text.parse().unwrap()), Kind::Public, "{text}");
        }
        let private = [
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001:10::1",
            "100::1",
            "5f00::1",
            "64:ff9b:1::808:808",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:808:808::1",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
        ];
        for text in private {
            assert!(matches!(kind(text.parse().unwrap()), Kind::Private(_)), "{text}");
        }
        let forbidden = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            // IPv4 inside IPv6: mapped, compatible, translated, NAT64, local NAT64, 6to4, Teredo server and client
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:808:808::5601:5601",
        ];
        for text in forbidden {
            assert!(matches!(kind(text.parse().unwrap()), Kind::Forbidden(_)), "{text}");
        }
    }
}
