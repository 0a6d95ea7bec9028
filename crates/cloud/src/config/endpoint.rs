//! Addresses: what a URL of a user or of a catalog may look like, and the URL of a job.

use super::EndpointPolicy;
use crate::{outcome::configuration_error, wire::text::Redactor};
use http::{Uri, uri::PathAndQuery};
use hyper::body::Bytes;
use image_export_model::{ConfigurationError, ConfigurationReason, JobId, ProjectId};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    str::FromStr,
    sync::{Arc, LazyLock},
};
use url::{Host, Url};

/// Longest name in DNS, in bytes. The URL parser permits longer ones, and messages name hosts.
const MAX_HOST_BYTES: usize = 253;
/// Longest host with a port in a message, in characters.
const MAX_SHOWN_HOST: usize = MAX_HOST_BYTES + ":65535".len();

/// Under which path an endpoint answers the job query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobPath {
    /// `/v1/{project_id}/jobs/{job_id}`
    #[default]
    V1Jobs,
    /// `/v1/cloudimages/job/{job_id}`
    Cloudimages,
}

impl JobPath {
    /// The names of the variants in command lines and cloud entries.
    pub const NAMES: [&str; 2] = ["v1-jobs", "cloudimages"];
}

impl FromStr for JobPath {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "v1-jobs" => Ok(Self::V1Jobs),
            "cloudimages" => Ok(Self::Cloudimages),
            _ => Err(format!("neither {}", Self::NAMES.join(" nor "))),
        }
    }
}

/// A base URL that passed the checks: http(s), a host, no user info, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: Url,
    /// Scheme and host of the URL.
    origin: Uri,
    key: Arc<str>,
    /// Nobody named it: it follows from the region.
    is_derived: bool,
}

/// `host[:port]` in lower case, without the final dot of the name and without the port of https.
pub(crate) fn normalised(host: &str) -> String {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => (name, port),
        _ => (host, "443"),
    };
    let name = name.trim_end_matches('.').to_lowercase();
    match port {
        "443" => name,
        _ => format!("{name}:{port}"),
    }
}

/// [`Endpoint::key`] of a host. It differs from one process to the next, so that nobody can look for equal ones.
pub(crate) fn host_key(host: &str) -> Arc<str> {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:016x}", STATE.hash_one(normalised(host))).into()
}

/// Why a URL is not accepted. The URL itself is not repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("is not a URL such as https://ims.eu-de.otc.t-systems.com")]
    NotAUrl,
    #[error("holds user info (user:password@), which is not allowed; remove it")]
    UserInfo,
    #[error("uses plain http with host {0}; use https, or start the operator with --allow-http")]
    PlainHttp(String),
    #[error(
        "leads to host {0}, which is not allowed; an administrator can permit it with --allow-host"
    )]
    HostNotAllowed(String),
    #[error(
        "leads to host {0} on port {1}, which is not allowed; use port 443, or an administrator can permit this one with --allow-host {0}:{1}"
    )]
    PortNotAllowed(String, u16),
    #[error(
        "leads to {0}, a loopback, link-local, metadata or reserved address, which is never contacted"
    )]
    InternalAddress(String),
}

impl InvalidUrl {
    /// An error that names the field that holds the URL, the place of that field, and the host without
    /// the secrets that `redactor` knows.
    pub(crate) fn into_error(
        mut self,
        field: &str,
        place: &dyn fmt::Display,
        redactor: &Redactor,
    ) -> ConfigurationError {
        let reason = match &mut self {
            Self::PlainHttp(host)
            | Self::HostNotAllowed(host)
            | Self::PortNotAllowed(host, _)
            | Self::InternalAddress(host) => {
                *host = redactor.clean_name(host, MAX_SHOWN_HOST);
                ConfigurationReason::EndpointNotAllowed
            }
            Self::NotAUrl | Self::UserInfo => ConfigurationReason::EndpointInvalid,
        };
        configuration_error(reason, format!("{field} in {place} {self}"))
    }
}

impl Endpoint {
    /// Checks `raw` against `policy`. An address behind a name is checked when it is resolved.
    pub(crate) fn parse(raw: &str, policy: &EndpointPolicy) -> Result<Self, InvalidUrl> {
        let mut url = Url::parse(raw.trim()).map_err(|_| InvalidUrl::NotAUrl)?;
        // Anywhere: in `https://user:12/3@host` the start of a password looks like host and port.
        if raw.contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        let name = url
            .host_str()
            .filter(|host| (1..=MAX_HOST_BYTES).contains(&host.len()))
            .ok_or(InvalidUrl::NotAUrl)?;
        let host = url.authority().to_owned();
        match url.scheme() {
            "https" => {}
            "http" if policy.allow_http => {}
            "http" => return Err(InvalidUrl::PlainHttp(host)),
            _ => return Err(InvalidUrl::NotAUrl),
        }
        if !policy.allows_host(name) {
            return Err(InvalidUrl::HostNotAllowed(host));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !policy.allows_port(name, port) {
            return Err(InvalidUrl::PortNotAllowed(name.to_owned(), port));
        }
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(ip.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if address.is_some_and(|address| !policy.allows_address(address)) {
            return Err(InvalidUrl::InternalAddress(host));
        }
        url.set_query(None);
        url.set_fragment(None);
        let origin = format!("{}://{}/", url.scheme(), url.authority());
        Ok(Self {
            key: host_key(url.authority()),
            origin: origin.parse().map_err(|_| InvalidUrl::NotAUrl)?,
            url,
            is_derived: false,
        })
    }

    /// An identity service: the path ends in `/v3`, whether the user wrote that or not.
    pub(crate) fn keystone(raw: &str, policy: &EndpointPolicy) -> Result<Self, InvalidUrl> {
        let mut endpoint = Self::parse(raw, policy)?;
        endpoint.pop_trailing_slashes();
        if endpoint.last_segment() != Some("v3") {
            endpoint.extend(&["v3"]);
        }
        Ok(endpoint)
    }

    /// An image service: the version (`/v1`, `/v2`, also before `project_id`) is taken off, as
    /// catalogs carry either of them or none.
    pub(crate) fn image(
        raw: &str,
        project_id: Option<&str>,
        policy: &EndpointPolicy,
    ) -> Result<Self, InvalidUrl> {
        let mut endpoint = Self::parse(raw, policy)?;
        endpoint.pop_trailing_slashes();
        if project_id.is_some() && endpoint.last_segment() == project_id {
            endpoint.pop();
        }
        if endpoint.last_segment().is_some_and(is_version) {
            endpoint.pop();
        }
        Ok(endpoint)
    }

    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// `host[:port]`, the port only where it is not the scheme's own.
    pub(crate) fn host(&self) -> &str {
        self.url.authority()
    }

    /// Tells its host from others, however each is spelt, and without showing it: it may hold a secret.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Whether this image service is of the cloud of the identity service at `auth_url`: the same server, or one beside
    /// it in the naming scheme of [`Self::image_service`]. What any other identity service says of a token is its own.
    pub(crate) fn is_of_cloud(&self, auth_url: &Self) -> bool {
        if self.key == auth_url.key {
            return true;
        }
        let (image, identity) = (normalised(self.host()), normalised(auth_url.host()));
        let Some(image) = image.strip_prefix("ims.") else {
            return false;
        };
        let mut prefixes = ["iam.", "iam-pub."].iter();
        let domain = prefixes.find_map(|prefix| identity.strip_prefix(prefix));
        let region = domain.and_then(|domain| image.strip_suffix(domain));
        region.is_some_and(|region| match region.strip_suffix('.') {
            Some(label) => !label.is_empty() && !label.contains('.'),
            None => region.is_empty(),
        })
    }

    /// The memory of its text.
    pub(crate) fn bytes(&self) -> usize {
        self.url.as_str().len()
    }

    /// Whether nobody named it: it follows from the region.
    pub(crate) fn is_derived(&self) -> bool {
        self.is_derived
    }

    /// [`Self::host`] without secrets, as messages and the log name it.
    pub(crate) fn shown_host(&self, redactor: &Redactor) -> Arc<str> {
        redactor.clean_name(self.host(), MAX_SHOWN_HOST).into()
    }

    /// The image service of `region` beside the identity service at `auth_url`, in the naming scheme of
    /// the public clouds: `iam.{region}.{domain}` or `iam.{domain}` has `ims.{region}.{domain}`; that of
    /// Open Telekom Cloud without an `auth_url`. `None` for an identity service of another name, or what
    /// cannot be a region.
    pub(crate) fn image_service(
        auth_url: Option<&Self>,
        region: &str,
        policy: &EndpointPolicy,
    ) -> Option<Result<Self, InvalidUrl>> {
        let host = match auth_url {
            Some(auth_url) => auth_url.url.host_str()?,
            None => "iam.otc.t-systems.com",
        };
        let domain = host
            .strip_prefix("iam.")
            .or_else(|| host.strip_prefix("iam-pub."))?;
        let domain = domain
            .strip_prefix(region)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(domain);
        let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let sound = !region.is_empty() && region.bytes().all(is_label);
        sound.then(|| {
            let endpoint = Self::parse(&format!("https://ims.{region}.{domain}"), policy)?;
            Ok(Self {
                is_derived: true,
                ..endpoint
            })
        })
    }

    /// Where jobs are queried. Ids have no character that needs an encoding.
    pub(crate) fn job_uri(&self, path: JobPath, project_id: &ProjectId, job_id: &JobId) -> Uri {
        match path {
            JobPath::V1Jobs => self.uri(&["/v1/", project_id.as_str(), "/jobs/", job_id.as_str()]),
            JobPath::Cloudimages => self.uri(&["/v1/cloudimages/job/", job_id.as_str()]),
        }
    }

    /// `{auth_url}/auth/tokens`, with `?nocatalog` where no catalog is needed.
    pub(crate) fn tokens_uri(&self, with_catalog: bool) -> Uri {
        let query = if with_catalog { "" } else { "?nocatalog" };
        self.uri(&["/auth/tokens", query])
    }

    fn uri(&self, below: &[&str]) -> Uri {
        let path = self.url.path();
        let mut path = path.strip_suffix('/').unwrap_or(path).to_owned();
        path.reserve(below.iter().map(|part| part.len()).sum());
        path.extend(below.iter().copied());
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path));
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(path.expect("the path of a URL is one of a URI"));
        Uri::from_parts(parts).expect("it has all its parts")
    }

    fn last_segment(&self) -> Option<&str> {
        self.url.path_segments()?.next_back()
    }

    // http(s) URLs always have a path to change; for others these do nothing.
    fn extend(&mut self, segments: &[&str]) {
        if let Ok(mut path) = self.url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
    }

    fn pop(&mut self) {
        if let Ok(mut path) = self.url.path_segments_mut() {
            path.pop();
        }
    }

    fn pop_trailing_slashes(&mut self) {
        let path = self.url.path().trim_end_matches('/').to_owned();
        self.url.set_path(&path);
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|number| {
        number.starts_with(|c: char| c.is_ascii_digit())
            && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn lab() -> EndpointPolicy {
        EndpointPolicy {
            allow_http: true,
            ..EndpointPolicy::default()
        }
    }

    /// Everything below `example.com`, by https, on two ports.
    fn example() -> EndpointPolicy {
        allowing(&["example.com", "example.com:8443"])
    }

    fn allowing(hosts: &[&str]) -> EndpointPolicy {
        EndpointPolicy {
            allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            ..EndpointPolicy::default()
        }
    }

    fn secret() -> Place {
        Place::KeyOf("Secret team-a/otc".to_owned())
    }

    fn job_url(endpoint: &Endpoint) -> String {
        let (project, job) = ("p1".parse().unwrap(), "j1".parse().unwrap());
        let uri = endpoint.job_uri(JobPath::V1Jobs, &project, &job);
        uri.to_string()
    }

    #[test]
    fn an_identity_service_speaks_for_the_image_services_of_its_cloud_alone() {
        let policy = crate::tests::lab().policy;
        let endpoint = |host: &str| Endpoint::parse(&format!("https://{host}"), &policy).unwrap();
        for (image, identity, is_of_cloud) in [
            (
                "ims.eu-de.otc.t-systems.com",
                "iam.eu-de.otc.t-systems.com",
                true,
            ),
            (
                "ims.eu-de.otc.t-systems.com.",
                "IAM.otc.t-systems.com",
                true,
            ),
            (
                "ims.eu-ch2.sc.otc.t-systems.com",
                "iam-pub.eu-ch2.sc.otc.t-systems.com",
                true,
            ),
            ("cloud.example.com", "cloud.example.com:443", true),
            ("cloud.example.com", "cloud.example.com:8443", false),
            ("ims.eu-de.otc.t-systems.com", "iam.example.com", false),
            (
                "ims.eu-de.otc.t-systems.com",
                "iam.de.otc.t-systems.com",
                false,
            ),
            ("ims.eu-de.otc.t-systems.com", "iam.t-systems.com", false),
            ("ims.eu-deotc.t-systems.com", "iam.otc.t-systems.com", false),
            (
                "eu-de.otc.t-systems.com",
                "iam.eu-de.otc.t-systems.com",
                false,
            ),
            ("ims..otc.t-systems.com", "iam.otc.t-systems.com", false),
        ] {
            let is = endpoint(image).is_of_cloud(&endpoint(identity));
            assert_eq!(is, is_of_cloud, "{image} {identity}");
        }
        assert_eq!(
            endpoint("a.example.com.:443").key(),
            endpoint("A.example.com").key()
        );
        assert_ne!(
            endpoint("a.example.com:444").key(),
            endpoint("a.example.com").key()
        );
    }

    #[test]
    fn versions_of_a_catalog_url_are_normalised_away() {
        for url in [
            "https://ims.eu-de.otc.t-systems.com",
            "https://ims.eu-de.otc.t-systems.com/",
            "https://ims.eu-de.otc.t-systems.com/v1",
            "https://ims.eu-de.otc.t-systems.com/v2/",
            "https://ims.eu-de.otc.t-systems.com/v2/p1",
            "https://ims.eu-de.otc.t-systems.com:443//?x=1#y",
        ] {
            let endpoint = Endpoint::image(url, Some("p1"), &EndpointPolicy::default()).unwrap();
            assert_eq!(
                job_url(&endpoint),
                "https://ims.eu-de.otc.t-systems.com/v1/p1/jobs/j1",
                "{url}"
            );
            assert_eq!(endpoint.host(), "ims.eu-de.otc.t-systems.com");
        }
        for (path, kept) in [
            ("/v2.1", "/v1"),
            ("/v12", "/v1"),
            ("/v", "/v/v1"),
            ("/v.1", "/v.1/v1"),
            ("/v1beta", "/v1beta/v1"),
            ("/vault", "/vault/v1"),
            ("/2", "/2/v1"),
            ("/v1/p2", "/v1/p2/v1"),
        ] {
            let url = format!("https://ims.example.com{path}");
            let endpoint = Endpoint::image(&url, Some("p1"), &example()).unwrap();
            let expected = format!("https://ims.example.com{kept}/p1/jobs/j1");
            assert_eq!(job_url(&endpoint), expected);
        }
        let behind_a_path =
            Endpoint::image("https://gw.example.com:8443/ims/v2", None, &example()).unwrap();
        assert_eq!(
            job_url(&behind_a_path),
            "https://gw.example.com:8443/ims/v1/p1/jobs/j1"
        );
        assert_eq!(behind_a_path.host(), "gw.example.com:8443");
    }

    #[test]
    fn an_auth_url_gets_its_version_once() {
        for url in [
            "https://iam.example.com",
            "https://iam.example.com/v3",
            "https://iam.example.com/v3/",
        ] {
            let keystone = Endpoint::keystone(url, &example()).unwrap();
            assert_eq!(
                keystone.tokens_uri(true),
                "https://iam.example.com/v3/auth/tokens"
            );
            assert_eq!(keystone.tokens_uri(false).query(), Some("nocatalog"));
        }
    }

    /// Whatever characters the path of a URL has, it is one of a URI.
    #[test]
    fn each_path_is_kept_as_it_is_encoded() {
        let path: String = (' '..='~').filter(|c| !"@?#".contains(*c)).collect();
        for path in [path.as_str(), "/a/../b//", "/%zz", "/ä", "/\\x"] {
            let url = format!("https://ims.example.com/x{path}");
            let endpoint = Endpoint::parse(&url, &example()).unwrap();
            let path = endpoint.url.path();
            let kept = path.strip_suffix('/').unwrap_or(path);
            let expected = format!("https://ims.example.com{kept}/v1/p1/jobs/j1");
            assert_eq!(job_url(&endpoint), expected);
        }
    }

    #[test]
    fn an_unusable_url_is_refused_and_not_repeated() {
        for url in [
            "",
            "ims.example.com",
            "ftp://ims.example.com",
            "https://",
            "canary",
            "https://u:canary@h",
            "https://canary@h",
            "https://u:1/canary@h",
            "http://canary:1/2@h",
            "https://canary:1?2@h",
            "https://canary:1#2@h",
            "https://canary:1\\2@h",
            "https://canary/x@h/v3",
            "https://canary/x@",
        ] {
            let invalid = Endpoint::parse(url, &lab()).unwrap_err();
            let error = invalid.into_error("f", &secret(), &Redactor::default());
            assert_eq!(error.reason, ConfigurationReason::EndpointInvalid, "{url}");
            assert!(!error.message.contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn another_port_is_allowed_only_where_the_list_names_it() {
        for (url, allowed) in [
            ("https://ims.example.com", true),
            ("https://ims.example.com:443", true),
            ("https://ims.example.com:8443", true),
            ("https://ims.example.com:6443", false),
        ] {
            assert_eq!(Endpoint::parse(url, &example()).is_ok(), allowed, "{url}");
        }
        let invalid = Endpoint::parse("https://ims.example.com:6443", &example());
        let redactor = Redactor::new([&"canary-7f3a".into()]);
        let error = invalid.unwrap_err().into_error("f", &secret(), &redactor);
        assert_eq!(error.reason, ConfigurationReason::EndpointNotAllowed);
        assert_eq!(
            &*error.message,
            "f in Secret team-a/otc leads to host ims.example.com on port 6443, which is not allowed; use port 443, or an administrator can permit this one with --allow-host ims.example.com:6443"
        );
    }

    #[test]
    fn a_host_is_named_without_the_secrets_in_it() {
        let redactor = Redactor::new([&"Canary-7F3A".into(), &"systems".into()]);
        for (url, shown) in [
            (
                "http://canary-7f3a.example.com:8080",
                "http with host [redacted].example.com:8080;",
            ),
            ("https://CANARY-7f3a:8443", "host [redacted]:8443, which"),
            (
                "https://can%61ry-7f3a.t-systems.com",
                "host [redacted].t-systems.com, which",
            ),
        ] {
            let invalid = Endpoint::parse(url, &example()).unwrap_err();
            let error = invalid.into_error("f", &secret(), &redactor);
            assert!(error.message.contains(shown), "{error:?}");
        }
        let redactor = Redactor::new([&"127.0.0.1".into()]);
        let invalid = Endpoint::parse("https://127.0.0.1/", &allowing(&["127.0.0.1"]));
        let error = invalid.unwrap_err().into_error("f", &secret(), &redactor);
        assert!(
            error.message.contains("leads to [redacted], a loopback"),
            "{error:?}"
        );
    }
}
