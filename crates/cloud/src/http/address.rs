//! Which addresses a connection may lead to: names are resolved, addresses checked, and the connection
//! goes to the very addresses that were checked.

use super::proxy::Proxies;
use crate::CloudOptions;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Metadata services of other clouds, outside of the link-local range: Alibaba, Azure, Oracle.
const METADATA: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Whether an address belongs to this machine, its link or a metadata service, or cannot be a
/// server's. Private networks are not internal: clouds are reached through them.
pub(crate) fn is_internal(address: IpAddr) -> bool {
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
                // The local-use range of NAT64, where each network chooses its own form.
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || embedded_v4(v6).is_some_and(|v4| is_internal(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address in a mapped, compatible, NAT64 or 6to4 one.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let ([0, 0, 0, 0, 0, 0 | 0xffff, high, low]
    | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
    | [0x2002, high, low, ..]) = v6.segments()
    else {
        return None;
    };
    Some((u32::from(high) << 16 | u32::from(low)).into())
}

/// All addresses of a host are internal ones.
#[derive(Debug, thiserror::Error)]
#[error("leads to a loopback, link-local or metadata address")]
pub(super) struct InternalAddress;

/// Resolves names as the system does and passes on only the permitted addresses.
pub(super) struct CheckedResolver {
    allow_internal: bool,
    /// The administrator chooses them, often on loopback; they resolve the names behind them.
    proxies: Arc<Proxies>,
}

impl CheckedResolver {
    pub(super) fn new(options: &CloudOptions) -> Self {
        Self {
            allow_internal: options.policy.allow_http,
            proxies: options.proxies.clone(),
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let all_pass = self.allow_internal || self.proxies.contain(name.as_str());
        Box::pin(async move {
            let mut found = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .peekable();
            let any = found.peek().is_some();
            let checked: Vec<_> = found
                .filter(|address| all_pass || !is_internal(address.ip()))
                .collect();
            if any && checked.is_empty() {
                return Err(InternalAddress.into());
            }
            Ok(Box::new(checked.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of this machine, which every machine resolves by itself.
    #[tokio::test]
    async fn a_name_is_resolved_to_the_permitted_addresses() {
        let resolve = async |allow_internal, proxy: Option<&str>| {
            let proxy = |name: &str| proxy.filter(|_| name == "ALL_PROXY").map(str::to_owned);
            let resolver = CheckedResolver {
                allow_internal,
                proxies: Arc::new(Proxies::read(proxy).unwrap()),
            };
            resolver.resolve("localhost".parse().unwrap()).await
        };
        let found = resolve(true, None).await;
        assert!(found.unwrap().all(|address| address.ip().is_loopback()));
        let refused = resolve(false, None).await.err().unwrap();
        assert!(refused.is::<InternalAddress>(), "{refused}");
        // The administrator's own proxy may be anywhere.
        assert!(resolve(false, Some("localhost:3128")).await.is_ok());
        assert!(resolve(false, Some("proxy:3128")).await.is_err());
    }

    #[test]
    fn internal_addresses_are_recognised_in_every_notation_and_private_ones_pass() {
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
            assert!(is_internal(internal.parse().unwrap()), "{internal}");
        }
        for outside in [
            "10.1.2.3",
            "192.168.1.1",
            "100.125.1.1",
            "80.158.1.1",
            "2003::1",
        ] {
            assert!(!is_internal(outside.parse().unwrap()), "{outside}");
        }
    }
}
