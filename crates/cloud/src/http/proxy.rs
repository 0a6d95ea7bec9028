//! The proxies of the environment, in one reading for all that this program connects to: that of Go, and so
//! of kubectl, with curl's `ALL_PROXY` and its leading full stop.

use super::error::{find, os_error, tls_text};
use http::HeaderValue;
use hyper_util::client::{
    legacy::connect::{HttpConnector, proxy::Tunnel},
    proxy::matcher::{Intercept, Matcher},
};
use std::{error::Error, fmt, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

/// A proxy. Its display and debug forms are `host:port`: the URL may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    uri: http::Uri,
}

/// Which proxy leads to which host. Loopback addresses are always reached directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exempt {
    /// A name, an address or a network, as hyper-util's matcher reads it.
    host: String,
    /// `None`: each.
    port: Option<u16>,
}

/// A variable holds something else than a proxy. Never shows the value, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} names no usable proxy: write http://HOST:PORT, or https, socks5 or socks5h in place of http"
)]
pub struct InvalidProxy(pub String);

/// What went wrong at a proxy: a sentence that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProxyProblem(String);

/// Its module is private.
type TunnelError = <Tunnel<HttpConnector> as tower::Service<http::Uri>>::Error;

/// Bound on [`Proxy::answer`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Proxies {
    /// Those of this process.
    pub fn from_env() -> Result<Self, InvalidProxy> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. The upper case wins, as in Go; an empty
    /// variable counts as unset.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidProxy> {
        let value = |name: &str| {
            let values = [name.to_owned(), name.to_lowercase()];
            let mut values = values.iter().filter_map(|name| variable(name));
            values.find(|value| !value.trim().is_empty())
        };
        let proxy = |name: &str| {
            let parse =
                |text: String| Proxy::parse(&text).ok_or_else(|| InvalidProxy(name.to_owned()));
            value(name).map(parse).transpose()
        };
        let no_proxy = value("NO_PROXY").unwrap_or_default();
        // curl separates by spaces as well.
        let entries = no_proxy.split(|c: char| c == ',' || c.is_whitespace());
        let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
        if entries.contains(&"*") {
            return Ok(Self::default());
        }
        let all = proxy("ALL_PROXY")?;
        Ok(Self {
            http: proxy("HTTP_PROXY")?.or_else(|| all.clone()),
            https: proxy("HTTPS_PROXY")?.or(all),
            exempt: entries.into_iter().map(Exempt::parse).collect(),
        })
    }

    /// The proxy that leads to this URL; `None`: it is reached directly.
    #[must_use]
    pub fn of(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        };
        proxy.filter(|_| !is_loopback(url) && !self.exempts(url))
    }

    fn exempts(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        let entries = self.exempt.iter();
        let entries = entries.filter(|entry| entry.port.is_none() || entry.port == port);
        let hosts: Vec<&str> = entries.map(|entry| entry.host.as_str()).collect();
        // It knows no ports.
        let matcher = Matcher::builder().all("http://proxy").no(hosts.join(","));
        let uri = url.as_str().parse();
        uri.is_ok_and(|uri| matcher.build().intercept(&uri).is_none())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// Whether a proxy has this host.
    pub(super) fn contain(&self, host: &str) -> bool {
        let mut proxies = [&self.http, &self.https].into_iter().flatten();
        proxies.any(|proxy| proxy.url.host_str() == Some(host))
    }
}

impl Exempt {
    /// `host`, `host:port`, `address`, `network/bits`, `[address]:port`, `.domain` or `*.domain`.
    fn parse(entry: &str) -> Self {
        let bracketed = entry
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let (host, port) = match (bracketed, entry.rsplit_once(':')) {
            (Some((address, port)), _) => (address, port.trim_start_matches(':')),
            // More than one colon is an address of IPv6.
            (None, Some((host, port))) if !host.contains(':') => (host, port),
            _ => (entry, ""),
        };
        Self {
            host: host.strip_prefix("*").unwrap_or(host).to_owned(),
            port: port.parse().ok(),
        }
    }
}

impl Proxy {
    /// Reads a URL, or `[user:password@]host[:port]` of an HTTP proxy.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut url = if text.contains("://") {
            Url::parse(text).ok()?
        } else {
            Url::parse(&format!("http://{text}")).ok()?
        };
        match url.scheme() {
            "http" | "https" => {}
            "socks5" | "socks5h" => url.set_port(url.port().or(Some(1080))).ok()?,
            _ => return None,
        }
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        // kube knows one kind of SOCKS 5, in which the proxy resolves names.
        let uri = url.as_str().replacen("socks5h:", "socks5:", 1);
        let uri = uri.parse().ok()?;
        Some(Self { url, uri })
    }

    /// With user and password, in the form that kube's client reads.
    #[must_use]
    pub fn uri(&self) -> &http::Uri {
        &self.uri
    }

    pub(super) fn is_socks(&self) -> bool {
        self.url.scheme().starts_with("socks")
    }

    /// Whether it resolves the names of servers, in place of this program.
    pub(super) fn resolves_names(&self) -> bool {
        self.url.scheme() != "socks5"
    }

    /// Its user, for `Proxy-Authorization`.
    pub(super) fn basic_auth(&self) -> Option<HeaderValue> {
        self.intercept()?.basic_auth().cloned()
    }

    /// Its user and password, for SOCKS.
    pub(super) fn raw_auth(&self) -> Option<(String, String)> {
        let intercept = self.intercept()?;
        let (user, password) = intercept.raw_auth()?;
        Some((user.to_owned(), password.to_owned()))
    }

    fn intercept(&self) -> Option<Intercept> {
        let matcher = Matcher::builder().all(self.url.as_str()).build();
        matcher.intercept(&http::Uri::from_static("http://any"))
    }

    /// Whether a failed request to `url` failed at the proxy, and how.
    pub fn problem<'a>(
        &'a self,
        error: &(dyn Error + 'static),
        url: &'a Url,
    ) -> Option<impl Future<Output = ProxyProblem> + use<'a>> {
        let known = match find::<TunnelError>(error)? {
            TunnelError::ConnectFailed(cause) => Some(self.unreachable(&**cause)),
            TunnelError::ProxyAuthRequired => Some(self.refused(url, Some(407))),
            TunnelError::TunnelUnsuccessful => None,
            _ => {
                let text = format!("proxy {self} broke the connection to {}", authority(url));
                Some(ProxyProblem(text))
            }
        };
        Some(async move {
            if let Some(problem) = known {
                return problem;
            }
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(url)).await;
            self.refused(url, answer.ok().flatten())
        })
    }

    fn refused(&self, url: &Url, status: Option<u16>) -> ProxyProblem {
        let host = authority(url);
        let status = status.map_or_else(String::new, |status| format!(" ({status})"));
        ProxyProblem(format!(
            "proxy {self} refused the connection to {host}{status}"
        ))
    }

    /// The problem of a proxy to which no connection was made.
    pub(super) fn unreachable(&self, error: &(dyn Error + 'static)) -> ProxyProblem {
        ProxyProblem(if let Some(tls) = find::<rustls::Error>(error) {
            format!("proxy {self} cannot be trusted: {}", tls_text(tls))
        } else if let Some(kind) = os_error(error) {
            format!("proxy {self} cannot be reached: {kind}")
        } else {
            format!("proxy {self} cannot be reached")
        })
    }

    /// The status with which the proxy refuses a connection to the URL's host. It is asked once more:
    /// hyper-util drops the number of its answer. `None` for proxies behind TLS.
    async fn answer(&self, url: &Url) -> Option<u16> {
        if self.url.scheme() != "http" {
            return None;
        }
        let host = self.url.host_str()?.trim_matches(['[', ']']);
        let mut stream = TcpStream::connect((host, self.url.port_or_known_default()?))
            .await
            .ok()?;
        let target = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(user) = self.basic_auth() {
            request.extend([b"Proxy-Authorization: ", user.as_bytes(), b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        stream.write_all(&request).await.ok()?;
        let mut beginning = *b"HTTP/1.1 200";
        stream.read_exact(&mut beginning).await.ok()?;
        let status = std::str::from_utf8(&beginning[9..]).ok()?.parse().ok()?;
        (status != 200).then_some(status)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        write!(f, "{host}:{port}")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `host[:port]`, without user info.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether the URL leads to this machine, which no proxy can reach.
fn is_loopback(url: &Url) -> bool {
    // Not `Url::host`: it does not read addresses in URLs of each scheme.
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
