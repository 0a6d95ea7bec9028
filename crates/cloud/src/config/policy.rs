//! Which hosts a cloud entry may name.
//!
//! A cloud entry is written by a tenant: what it names must not open a way into the network of
//! whoever runs this client. So hosts are checked against the administrator's list here, and addresses
//! after name resolution in `http::address`.

use crate::http;
use std::net::IpAddr;
use url::Host;

/// Domains of the public clouds: Open Telekom Cloud, Huawei Cloud, Huawei Cloud Europe.
pub const PUBLIC_CLOUDS: [&str; 3] = ["otc.t-systems.com", "myhuaweicloud.com", "myhuaweicloud.eu"];

/// Which hosts an administrator permits cloud entries to name.
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
    pub(crate) fn allows_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.allow_http
            || self.allowed_hosts.iter().any(|allowed| {
                host.strip_suffix(allowed.as_str())
                    .is_some_and(|below| below.is_empty() || below.ends_with('.'))
            })
    }

    pub(crate) fn allows_address(&self, address: IpAddr) -> bool {
        self.allow_http || !http::is_internal(address)
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
}
