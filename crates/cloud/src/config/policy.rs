//! Which hosts a cloud entry may name.
//!
//! A cloud entry is written by a tenant: what it names must not open a way into the network of
//! whoever runs this client. So hosts are checked against the administrator's list here, and addresses
//! after name resolution in `http::address`.

use crate::http;
use std::{net::IpAddr, str::FromStr};
use url::Host;

/// The identity and image services of Open Telekom Cloud, Huawei Cloud and Huawei Cloud Europe. Tenants have
/// a say in what other hosts of these domains answer, those of object storage above all.
pub const PUBLIC_CLOUDS: [&str; 12] = [
    "iam.otc.t-systems.com",
    "iam.*.otc.t-systems.com",
    "ims.*.otc.t-systems.com",
    "iam-pub.*.sc.otc.t-systems.com",
    "iam.*.sc.otc.t-systems.com",
    "ims.*.sc.otc.t-systems.com",
    "iam.myhuaweicloud.com",
    "iam.*.myhuaweicloud.com",
    "ims.*.myhuaweicloud.com",
    "iam.myhuaweicloud.eu",
    "iam.*.myhuaweicloud.eu",
    "ims.*.myhuaweicloud.eu",
];

/// The port of https.
const HTTPS: u16 = 443;

/// What an administrator permits cloud entries to name.
#[derive(Clone, Debug)]
pub struct EndpointPolicy {
    /// For labs: permits plain http, loopback addresses, any host and any port.
    pub allow_http: bool,
    /// Default [`PUBLIC_CLOUDS`].
    pub allowed_hosts: Vec<AllowedHost>,
    /// Refuses entries that accept any certificate.
    pub require_verified_tls: bool,
}

impl Default for EndpointPolicy {
    fn default() -> Self {
        let parse = |host: &str| host.parse().expect("a host");
        Self {
            allow_http: false,
            allowed_hosts: PUBLIC_CLOUDS.map(parse).into(),
            require_verified_tls: false,
        }
    }
}

impl EndpointPolicy {
    /// Whether `host`, in lower case as URLs hold it, is on the list with any port.
    pub(crate) fn allows_host(&self, host: &str) -> bool {
        self.allow_http || self.allowed_hosts.iter().any(|allowed| allowed.is(host))
    }

    /// Whether `host` is on the list with this port.
    pub(crate) fn allows_port(&self, host: &str, port: u16) -> bool {
        let is = |allowed: &AllowedHost| allowed.port == port && allowed.is(host);
        self.allow_http || self.allowed_hosts.iter().any(is)
    }

    pub(crate) fn allows_address(&self, address: IpAddr) -> bool {
        self.allow_http || !http::is_internal(address)
    }
}

/// A host that cloud entries may name, on one port.
///
/// - `example.com` is this host and all below it.
/// - In `iam.*.example.com`, `*` stands for one label, a region. It is no host of object storage, in which
///   tenants choose names and answers: no label that begins with `obs`.
/// - The port is 443, unless `:PORT` follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    port: u16,
}

impl AllowedHost {
    fn is(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.name.contains('*') {
            let below = host.strip_suffix(&*self.name);
            return below.is_some_and(|below| below.is_empty() || below.ends_with('.'));
        }
        let (labels, wanted) = (host.split('.'), self.name.split('.'));
        labels.clone().count() == wanted.clone().count()
            && labels.zip(wanted).all(|(label, wanted)| {
                label == wanted || wanted == "*" && !label.starts_with("obs")
            })
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    /// Reads a name or an address, without scheme or path. A leading `*.` or full stop says what holds anyway.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "not a host such as iam.eu-de.otc.t-systems.com, or host:port".to_owned();
        let text = text.trim().trim_start_matches("*.").trim_start_matches('.');
        let (name, port) = match text.rsplit_once(':') {
            // An address of IPv6 is in brackets, which hold all of its colons.
            Some((name, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (name, port.ok_or_else(invalid)?)
            }
            _ => (text, HTTPS),
        };
        let host = Host::parse(name).map_err(|_| invalid())?.to_string();
        let name = host.trim_end_matches('.').to_owned();
        let mut labels = name.split('.');
        let ends_are_named = !name.starts_with('*') && !name.ends_with('*');
        if name.is_empty() || !ends_are_named || !labels.all(is_whole) {
            return Err(invalid());
        }
        Ok(Self { name, port })
    }
}

/// Whether a label is either named or left open.
fn is_whole(label: &str) -> bool {
    label == "*" || !label.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_image_services_of_the_public_clouds_are_allowed_and_nothing_beside_them() {
        let policy = EndpointPolicy::default();
        for host in [
            "iam.eu-de.otc.t-systems.com",
            "ims.eu-de.otc.t-systems.com",
            "ims.eu-de.otc.t-systems.com.",
            "iam-pub.eu-ch2.sc.otc.t-systems.com",
            "ims.eu-ch2.sc.otc.t-systems.com",
            "iam.myhuaweicloud.com",
            "iam.cn-north-4.myhuaweicloud.com",
            "ims.cn-north-4.myhuaweicloud.com",
            "iam.eu-west-101.myhuaweicloud.eu",
            "ims.eu-west-101.myhuaweicloud.eu",
        ] {
            assert!(policy.allows_port(host, 443), "{host}");
            assert!(!policy.allows_port(host, 8443), "{host}");
        }
        for host in [
            "t-systems.com",
            "otc.t-systems.com",
            "evil-otc.t-systems.com",
            "evil-ims.eu-de.otc.t-systems.com",
            "otc.t-systems.com.example.com",
            "obs.eu-de.otc.t-systems.com",
            "bucket.obs.eu-de.otc.t-systems.com",
            // Buckets of these names.
            "ims.obs.otc.t-systems.com",
            "ims.obs.eu-de.otc.t-systems.com",
            "iam.obs.myhuaweicloud.com",
            "iam.obs.cn-north-4.myhuaweicloud.com",
            "ims.obs-website.myhuaweicloud.com",
            "ecs.eu-de.otc.t-systems.com",
            "169.254.169.254",
            "kubernetes.default.svc",
            "",
        ] {
            assert!(!policy.allows_host(host), "{host}");
        }
    }

    #[test]
    fn a_host_of_the_list_is_allowed_with_all_below_it_on_its_port() {
        let allowed = |hosts: &[&str], host: &str, port| {
            let policy = EndpointPolicy {
                allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
                ..EndpointPolicy::default()
            };
            policy.allows_port(host, port)
        };
        for (hosts, host, port, is_allowed) in [
            (&["example.com"][..], "example.com", 443, true),
            (&["example.com"], "a.b.example.com", 443, true),
            (&["example.com"], "notexample.com", 443, false),
            (&["example.com"], "example.com", 80, false),
            (&["example.com"], "example.com", 6443, false),
            (&["example.com:8443"], "a.example.com", 8443, true),
            (&["example.com:8443"], "a.example.com", 443, false),
            (
                &["example.com", "example.com:8443"],
                "example.com",
                443,
                true,
            ),
            (&["a.*.example.com"], "a.b.example.com", 443, true),
            (&["a.*.example.com"], "a.example.com", 443, false),
            (&["a.*.example.com"], "a.b.c.example.com", 443, false),
            (&["a.*.example.com"], "x.a.b.example.com", 443, false),
            (&["a.*.example.com:8443"], "a.b.example.com", 8443, true),
            (&["10.1.2.3:5000"], "10.1.2.3", 5000, true),
            (&["[2003::1]:5000"], "[2003::1]", 5000, true),
        ] {
            assert_eq!(
                allowed(hosts, host, port),
                is_allowed,
                "{hosts:?} {host}:{port}"
            );
        }
        let lab = EndpointPolicy {
            allow_http: true,
            ..EndpointPolicy::default()
        };
        assert!(lab.allows_port("127.0.0.1", 39_999));
    }

    #[test]
    fn a_host_for_the_list_is_a_name_or_an_address() {
        for (text, name, port) in [
            ("Example.COM", "example.com", 443),
            (" *.example.com", "example.com", 443),
            (".example.com.", "example.com", 443),
            ("10.1.2.3", "10.1.2.3", 443),
            ("example.com:443", "example.com", 443),
            ("*.example.com:8443", "example.com", 8443),
            ("[2003::1]", "[2003::1]", 443),
            ("[2003::1]:8443", "[2003::1]", 8443),
            ("iam.*.example.com", "iam.*.example.com", 443),
        ] {
            let name = name.to_owned();
            assert_eq!(text.parse(), Ok(AllowedHost { name, port }), "{text}");
        }
        for wrong in [
            "",
            "*",
            "https://example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:https",
            "2003::1",
            ":443",
            "a/b",
            "*.",
            "iam.*",
            "i*m.example.com",
            "iam.*x.example.com",
        ] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }
}
