//! From a URL to a connection: the proxy on the way, the permitted addresses, TLS.

use super::{
    address::CheckedResolver,
    connection::{Connection, Connections},
    proxy::{Proxies, Proxy},
};
use crate::CloudOptions;
use ::http::Uri;
use futures::future::BoxFuture;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{BoxError, Service, ServiceExt, timeout::Timeout};
use url::Url;

/// How long a connection is silent before the system asks whether the other end is still there, how long between two
/// questions, and how many it asks.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;
/// How long what was sent may stay without an acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// What leads to a server or its proxy: in the clear, or TLS to the proxy.
type Way = MaybeHttpsStream<TokioIo<Connection>>;
/// [`Way`], with TLS to the server where the URL asks for it.
pub(super) type Stream = MaybeHttpsStream<Way>;

/// Connects. Its errors hold [`tower::timeout::error::Elapsed`] where it took too long.
#[derive(Clone)]
pub(super) struct Connector(Arc<Timeout<HttpsConnector<Ways>>>);

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// Copies what is needed to connect: each request copies this service, and few connect.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = Timeout::clone(&self.0).oneshot(uri);
        Box::pin(async move {
            let mut stream = connecting.await?;
            if let MaybeHttpsStream::Https(tls) = &mut stream {
                let (way, session) = tls.inner_mut().get_mut();
                if session.alpn_protocol() == Some(b"h2") {
                    connection_of(way.inner_mut()).carry_many();
                }
            }
            Ok(stream)
        })
    }
}

fn connection_of(way: &mut Way) -> &mut Connection {
    match way {
        MaybeHttpsStream::Http(tcp) => tcp.inner_mut(),
        MaybeHttpsStream::Https(tls) => tls.inner_mut().get_mut().0.inner_mut().inner_mut(),
    }
}

/// Connects within the time-out of `options`. `tls` is for servers and proxies; servers may choose HTTP/2.
pub(super) fn connector(options: &CloudOptions, tls: ClientConfig, open: Connections) -> Connector {
    let resolver = CheckedResolver::new(options);
    let mut http = HttpConnector::new_with_resolver(resolver.clone());
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(options.connect_timeout));
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE));
    http.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut proxy_tls = tls.clone();
    proxy_tls.alpn_protocols.clear();
    let ways = Ways {
        tcp: Tcp {
            http,
            open,
            is_proxied: false,
        },
        resolver,
        proxies: Arc::clone(&options.proxies),
        proxy_tls: Arc::new(proxy_tls),
    };
    let connector = HttpsConnector::from((ways, tls));
    Connector(Arc::new(Timeout::new(connector, options.connect_timeout)))
}

/// Connects to a host.
#[derive(Clone)]
struct Tcp {
    http: HttpConnector<CheckedResolver>,
    open: Connections,
    is_proxied: bool,
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<Connection>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, open) = (self.http.call(uri), self.open.clone());
        let is_proxied = self.is_proxied;
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(open.add(stream, is_proxied)))
        })
    }
}

/// Leads to the server of a URL, or to the proxy before it.
#[derive(Clone)]
struct Ways {
    tcp: Tcp,
    resolver: CheckedResolver,
    proxies: Arc<Proxies>,
    proxy_tls: Arc<ClientConfig>,
}

impl Service<Uri> for Ways {
    type Response = Way;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Way, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let proxy = proxy_of(&self.proxies, &uri).cloned();
        let mut ways = self.clone();
        Box::pin(async move {
            match proxy {
                None => Ok(MaybeHttpsStream::Http(ways.tcp.call(uri).await?)),
                Some(proxy) if proxy.is_socks() => ways.through_socks(&proxy, uri).await,
                Some(proxy) => ways.through_http(&proxy, uri).await,
            }
        })
    }
}

impl Ways {
    async fn through_http(mut self, proxy: &Proxy, uri: Uri) -> Result<Way, BoxError> {
        let is_plain = uri.scheme() == Some(&::http::uri::Scheme::HTTP);
        self.tcp.is_proxied = is_plain;
        let mut to_proxy = HttpsConnector::from((self.tcp, self.proxy_tls));
        if is_plain {
            return to_proxy.call(proxy.uri().clone()).await;
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
        if let Some(user) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(user);
        }
        Ok(tunnel.call(uri).await?)
    }

    async fn through_socks(self, proxy: &Proxy, uri: Uri) -> Result<Way, BoxError> {
        let mut socks = SocksV5::new(proxy.uri().clone(), self.tcp.clone());
        if let Some((user, password)) = proxy.raw_auth() {
            socks = socks.with_auth(user, password);
        }
        let mut failure = None;
        for place in self.places(proxy, &uri).await? {
            match socks.call(place).await {
                Ok(tcp) => return Ok(MaybeHttpsStream::Http(tcp)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or_else(|| "its name has no address".into(), Into::into))
    }

    /// Where the proxy is to connect to, with a port: without one it takes that of https. By their addresses, of which
    /// the proxy may reach only some, where it does not resolve names.
    async fn places(&self, proxy: &Proxy, uri: &Uri) -> Result<Vec<Uri>, BoxError> {
        let host = uri.host().unwrap_or_default();
        let is_plain = uri.scheme() == Some(&::http::uri::Scheme::HTTP);
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let hosts = if is_address || proxy.resolves_names() {
            vec![host.to_owned()]
        } else {
            let found = self.resolver.addresses(host.to_owned()).await?;
            let host = |address: SocketAddr| match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            found.map(host).collect()
        };
        let place = |host| {
            let mut parts = uri.clone().into_parts();
            parts.authority = Some(format!("{host}:{port}").parse()?);
            Ok(Uri::from_parts(parts)?)
        };
        hosts.into_iter().map(place).collect()
    }
}

/// The proxy that leads to this URI.
pub(super) fn proxy_of<'a>(proxies: &'a Proxies, uri: &Uri) -> Option<&'a Proxy> {
    if proxies.is_empty() {
        return None;
    }
    proxies.of(&Url::parse(&uri.to_string()).ok()?)
}
