//! Which addresses a connection may lead to: names are resolved, addresses checked, and the connection
//! goes to the very addresses that were checked.

use super::proxy::Proxies;
use crate::CloudOptions;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    vec,
};
use tokio::sync::Semaphore;
use tower::{BoxError, Service};

/// An address and how many of its first bits count.
type Network<T> = (T, u32);

/// IPv4 networks without servers of a cloud. Private networks are not among them: clouds are reached
/// through them.
const INTERNAL_V4: [Network<Ipv4Addr>; 13] = [
    // Reaches the machine itself on Linux.
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::LOCALHOST, 8),
    // Link-local, with most metadata services.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Metadata services of Alibaba Cloud and Azure.
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // For protocols, with the metadata service of Oracle Cloud.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // For documentation.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Relays of 6to4.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    // For benchmarks.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, with the broadcast address.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The same of IPv6.
const INTERNAL_V6: [Network<Ipv6Addr>; 15] = [
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
    // The local-use range of NAT64, where each network chooses its own form.
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    // Discarded.
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    // For protocols, with Teredo, which holds addresses of others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // For documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // Segment routing.
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16),
    // Metadata and other services for machines of Oracle Cloud, AWS, Google Cloud and Scaleway.
    (Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0), 32),
    // Link-local, and site-local as it was once.
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
    // Multicast.
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Whether an address belongs to this machine, its link or a metadata service, or cannot be a
/// server's.
pub(crate) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_in = |(network, bits): &Network<Ipv4Addr>| {
                (v4.to_bits() ^ network.to_bits()).leading_zeros() >= *bits
            };
            INTERNAL_V4.iter().any(is_in)
        }
        IpAddr::V6(v6) => {
            let is_in = |(network, bits): &Network<Ipv6Addr>| {
                (v6.to_bits() ^ network.to_bits()).leading_zeros() >= *bits
            };
            INTERNAL_V6.iter().any(is_in)
                || embedded_v4(v6).is_some_and(|v4| is_internal(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address in a mapped, compatible, translated (SIIT), NAT64, 6to4 or ISATAP one.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let ([0, 0, 0, 0, 0, 0 | 0xffff, high, low]
    | [0, 0, 0, 0, 0xffff, 0, high, low]
    | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
    | [0x2002, high, low, ..]
    | [.., 0 | 0x200, 0x5efe, high, low]) = v6.segments()
    else {
        return None;
    };
    Some((u32::from(high) << 16 | u32::from(low)).into())
}

/// All addresses of a host are internal ones.
#[derive(Debug, thiserror::Error)]
#[error("leads to a loopback, link-local, metadata or reserved address")]
pub(super) struct InternalAddress;

/// No address of a host is known.
#[derive(Debug, thiserror::Error)]
#[error("cannot be resolved")]
pub(super) struct Unresolved(#[from] io::Error);

/// Lookups at once, of all resolvers: each blocks a thread, for as long as the name's servers keep it waiting, and
/// whatever becomes of the poll. Secrets are parsed on such threads as well.
static LOOKUPS: Semaphore = Semaphore::const_new(128);

/// Resolves names as the system does and passes on only the permitted addresses.
#[derive(Clone)]
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

    /// Its error is [`Unresolved`] or [`InternalAddress`].
    pub(super) fn addresses(
        &self,
        name: String,
    ) -> BoxFuture<'static, Result<vec::IntoIter<SocketAddr>, BoxError>> {
        let all_pass = self.allow_internal || self.proxies.contain(&name);
        Box::pin(async move {
            let mut found = lookup(name).await.map_err(Unresolved)?.peekable();
            let any = found.peek().is_some();
            let checked: Vec<_> = found
                .filter(|address| all_pass || !is_internal(address.ip()))
                .collect();
            if any && checked.is_empty() {
                return Err(InternalAddress.into());
            }
            Ok(checked.into_iter())
        })
    }
}

/// A permit is given back when the lookup has ended, not when nobody waits for it any more.
async fn lookup(name: String) -> io::Result<impl Iterator<Item = SocketAddr>> {
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let lookup = async move {
        let found = tokio::net::lookup_host((name, 0)).await;
        drop(permit);
        found.map(Iterator::collect::<Vec<_>>)
    };
    Ok(tokio::spawn(lookup).await??.into_iter())
}

impl Service<Name> for CheckedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        self.addresses(name.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A name of this machine, which every machine resolves by itself.
    #[tokio::test]
    async fn a_name_is_resolved_to_the_permitted_addresses() {
        let resolve = async |allow_internal, proxy: Option<&str>| {
            let proxy = |name: &str| proxy.filter(|_| name == "ALL_PROXY").map(str::to_owned);
            let resolver = CheckedResolver {
                allow_internal,
                proxies: Arc::new(Proxies::read(proxy).unwrap()),
            };
            resolver.addresses("localhost".to_owned()).await
        };
        let found = resolve(true, None).await;
        assert!(found.unwrap().all(|address| address.ip().is_loopback()));
        let refused = resolve(false, None).await.err().unwrap();
        assert!(refused.is::<InternalAddress>(), "{refused}");
        // The administrator's own proxy may be anywhere.
        assert!(resolve(false, Some("localhost:3128")).await.is_ok());
        assert!(resolve(false, Some("proxy:3128")).await.is_err());
    }

    #[tokio::test]
    async fn a_lookup_waits_where_too_many_run() {
        let resolver = CheckedResolver {
            allow_internal: true,
            proxies: Arc::default(),
        };
        let running = LOOKUPS.acquire_many(128).await.unwrap();
        let waiting = tokio::spawn(resolver.addresses("localhost".to_owned()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(running);
        assert!(waiting.await.unwrap().is_ok());
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
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fec0::1",
            "feff::1",
            "fd00:ec2::23",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "100::1",
            "2001::1",
            "2001:0:a00:1::f5ff:fffe",
            "2001:2::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "::ffff:0:127.0.0.1",
            "::ffff:0:169.254.169.254",
            "2003::5efe:127.0.0.1",
            "fd12::200:5efe:169.254.169.254",
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
            "100.64.0.1",
            "172.31.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2003::1",
            "2001:200::1",
            "2606:4700::1",
            "fd12:3456::1",
            "::ffff:80.158.1.1",
            "::ffff:0:80.158.1.1",
            "64:ff9b::5099:101",
            "2002:509e:101::1",
        ] {
            assert!(!is_internal(outside.parse().unwrap()), "{outside}");
        }
    }
}
