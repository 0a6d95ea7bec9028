//! Which hosts a credential may lead to, and which addresses a connection may lead to.
//!
//! A Secret is a tenant's: what it names must not make the operator a way into its own network. So
//! hosts are checked against the administrator's list, and addresses once more after name
//! resolution; the connection is made to the very addresses that were checked.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use url::{Host, Url};

/// Domains of the public clouds: Open Telekom Cloud, Huawei Cloud, Huawei Cloud Europe.
pub const PUBLIC_CLOUDS: [&str; 3] = ["otc.t-systems.com", "myhuaweicloud.com", "myhuaweicloud.eu"];

/// What an administrator permits credentials to name.
#[derive(Clone, Debug)]
pub struct EndpointPolicy {
    /// For labs: permits plain http, loopback addresses and any host.
    pub allow_http: bool,
    /// Hosts, each with all hosts below it. Default [`PUBLIC_CLOUDS`].
    pub allowed_hosts: Vec<String>,
}

impl Default for EndpointPolicy {
    fn default() -> Self {
        Self {
            allow_http: false,
            allowed_hosts: PUBLIC_CLOUDS.map(str::to_owned).into(),
        }
    }
}

impl EndpointPolicy {
    /// Whether `host`, in lower case as URLs hold it, or a host above it is on the list.
    pub(super) fn allows_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.allow_http
            || self.allowed_hosts.iter().any(|allowed| {
                host.strip_suffix(allowed.as_str())
                    .is_some_and(|below| below.is_empty() || below.ends_with('.'))
            })
    }

    pub(super) fn allows_address(&self, address: IpAddr) -> bool {
        self.allow_http || !is_internal(address)
    }
}

/// Reads a host for the list: a name or an address, without scheme, port or path.
pub fn parse_allowed_host(text: &str) -> Result<String, String> {
    let name = text.trim().trim_start_matches("*.").trim_start_matches('.');
    match Host::parse(name) {
        Ok(host) if !name.is_empty() && !name.contains('*') => {
            Ok(host.to_string().trim_end_matches('.').to_owned())
        }
        _ => Err("not a host such as otc.t-systems.com".to_owned()),
    }
}

/// Metadata services of other clouds, outside of the link-local range: Alibaba, Azure, Oracle.
const METADATA: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Whether an address belongs to the machine itself, its link or a metadata service, or is none
/// that a server can have. Private networks are not among them: clouds are reached through them.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                // 0.0.0.0/8 reaches the machine itself on Linux.
                || v4.octets()[0] == 0
                || METADATA.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                // The local-use range of NAT64, whose form is anybody's choice.
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || embedded_v4(v6).is_some_and(|v4| is_internal(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address in a mapped, compatible, NAT64 or 6to4 one.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// All addresses of a host are internal ones.
#[derive(Debug, thiserror::Error)]
#[error("leads to a loopback, link-local or metadata address")]
pub(super) struct InternalAddress;

/// Resolves names as the system does and passes on the addresses that are permitted, and only those.
#[derive(Clone)]
pub(super) struct CheckedResolver {
    policy: Arc<EndpointPolicy>,
    /// Hosts of the environment's proxies. They are the administrator's choice, often on loopback;
    /// what stands behind one is resolved there.
    proxies: Arc<HashSet<String>>,
}

impl CheckedResolver {
    pub(super) fn new(policy: Arc<EndpointPolicy>) -> Self {
        Self {
            policy,
            proxies: Arc::new(proxy_hosts()),
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let all_pass = resolver.proxies.contains(name.as_str());
            let mut found = found.peekable();
            let any = found.peek().is_some();
            let checked: Vec<_> = found
                .filter(|address| all_pass || resolver.policy.allows_address(address.ip()))
                .collect();
            if any && checked.is_empty() {
                return Err(InternalAddress.into());
            }
            Ok(Box::new(checked.into_iter()) as Addrs)
        })
    }
}

fn proxy_hosts() -> HashSet<String> {
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_lowercase()])
        .filter_map(|name| std::env::var(name).ok())
        .filter_map(|proxy| {
            let url = Url::parse(&proxy)
                .ok()
                .filter(Url::has_host)
                .or_else(|| Url::parse(&format!("http://{proxy}")).ok())?;
            url.host_str().map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_clouds_are_allowed_with_everything_below_and_nothing_beside_them() {
        let policy = EndpointPolicy::default();
        for host in [
            "otc.t-systems.com",
            "ims.eu-de.otc.t-systems.com",
            "ims.eu-ch2.sc.otc.t-systems.com",
            "ims.eu-de.otc.t-systems.com.",
            "ims.cn-north-4.myhuaweicloud.com",
            "iam.eu-west-101.myhuaweicloud.eu",
        ] {
            assert!(policy.allows_host(host), "{host}");
        }
        for host in [
            "t-systems.com",
            "evil-otc.t-systems.com",
            "otc.t-systems.com.example.com",
            "169.254.169.254",
            "kubernetes.default.svc",
            "",
        ] {
            assert!(!policy.allows_host(host), "{host}");
        }
    }

    #[test]
    fn a_host_for_the_list_is_a_name_or_an_address() {
        for (text, host) in [
            ("Example.COM", "example.com"),
            (" *.example.com", "example.com"),
            (".example.com.", "example.com"),
            ("10.1.2.3", "10.1.2.3"),
        ] {
            assert_eq!(parse_allowed_host(text).as_deref(), Ok(host));
        }
        for wrong in [
            "",
            "*",
            "https://example.com",
            "example.com:443",
            "a/b",
            "*.",
        ] {
            assert!(parse_allowed_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn internal_addresses_are_refused_in_every_dress_and_private_ones_pass() {
        let policy = EndpointPolicy::default();
        for internal in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "64:ff9b:1::a9fe:a9fe",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
        ] {
            assert!(
                !policy.allows_address(internal.parse().unwrap()),
                "{internal}"
            );
        }
        for outside in [
            "10.1.2.3",
            "192.168.1.1",
            "100.125.1.1",
            "80.158.1.1",
            "2003::1",
        ] {
            assert!(policy.allows_address(outside.parse().unwrap()), "{outside}");
        }
    }
}
