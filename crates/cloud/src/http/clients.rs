//! HTTP clients, shared by all that trust the same authorities.

use super::{
    NoAnswer,
    connect::{Connector, connector},
    connection::Connections,
    verifier::OwnOrSystem,
};
use crate::CloudOptions;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use image_export_model::FailureKind;
use rustls::{ClientConfig, client::Resumption, pki_types::CertificateDer};
use sha2::{Digest, Sha256};
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// Follows no redirects, sends no cookies, and repeats nothing but what it has not sent.
pub(super) type Client = legacy::Client<Connector, Full<Bytes>>;

/// Gateways commonly drop idle connections after 60 s; ours are dropped before.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Connections to one host that are kept for later polls: as many as a quota has in flight. With fewer, what is polled
/// in one second would open new ones each time, which costs more than the polls.
const IDLE_CONNECTIONS: usize = 64;
/// Bytes of an answer's headers. A token that is too long to be used fits in, so that the message can report it.
pub(super) const MAX_HEADERS: u32 = 64 * 1024;
/// Time-outs of requests do not end an HTTP/2 connection, and one whose other end is gone would
/// swallow request after request.
const PING_AFTER: Duration = Duration::from_secs(5);
/// What a server may send of an answer in HTTP/2 before it is read, in bytes.
const STREAM_WINDOW: u32 = 32 * 1024;
/// The same of all answers of a connection, so that none waits for another: as many as are polled at once.
pub(super) const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;
/// TLS sessions that the default client can resume: up to 8 of each of 8 hosts, of which each may take 64 KiB.
const SESSIONS: usize = 64;
/// Clients with trust settings of their own that are kept while no request uses them.
const MAX_IDLE: usize = 32;

/// Which server certificates are accepted; by default those of the system's authorities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Beside the system's authorities.
    pub(crate) authorities: Arc<[CertificateDer<'static>]>,
    pub(crate) accept_any: bool,
}

impl Trust {
    /// The memory of its certificates.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |der: &CertificateDer<'_>| size_of_val(der) + der.len();
        self.authorities.iter().map(bytes).sum()
    }

    fn is_default(&self) -> bool {
        !self.accept_any && self.authorities.is_empty()
    }

    /// Nobody can make two settings with one hash, so none lends its trust to another.
    fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        // With this, the authorities do not matter.
        if !self.accept_any {
            for der in self.authorities.iter() {
                hasher.update(der.len().to_le_bytes());
                hasher.update(der);
            }
        }
        hasher.finalize().into()
    }
}

/// Which HTTP clients a credential with trust settings of its own uses: those of all with equal ones.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    trust: Trust,
    hash: [u8; 32],
}

impl Clients {
    /// `None` if `trust` is the default one.
    pub(crate) fn of(trust: Trust) -> Option<Self> {
        (!trust.is_default()).then(|| Self {
            hash: trust.hash(),
            trust,
        })
    }
}

/// The two clients of one [`Trust`]. Each is built when first needed.
#[derive(Debug)]
pub(super) struct ClientPair {
    trust: Trust,
    /// By the flag of [`ClientCache::client`].
    built: [OnceLock<Client>; 2],
}

impl ClientPair {
    fn new(trust: Trust) -> Self {
        Self {
            trust,
            built: Default::default(),
        }
    }
}

/// The clients of all trust settings in use, and of the latest others.
#[derive(Debug)]
pub(super) struct ClientCache {
    default: Arc<ClientPair>,
    /// The last one was used last.
    others: Mutex<Vec<([u8; 32], Arc<ClientPair>)>>,
    /// The connections of all.
    open: Connections,
}

impl ClientCache {
    /// With a client for the default trust.
    pub(super) fn new(options: &CloudOptions) -> Result<Self, rustls::Error> {
        let open = Connections::default();
        let default = ClientPair::new(Trust::default());
        let _ = default.built[0].set(client(options, &default.trust, &open, false)?);
        Ok(Self {
            default: Arc::new(default),
            others: Mutex::default(),
            open,
        })
    }

    /// The clients of these trust settings, or of the default ones. Of the others, those that no request holds
    /// make room: the number of clients is bounded by [`MAX_IDLE`] and by that of requests in flight.
    pub(super) fn get(&self, clients: Option<&Clients>) -> Arc<ClientPair> {
        let Some(wanted) = clients else {
            return Arc::clone(&self.default);
        };
        // The list is valid at each moment, so a poisoned lock is used all the same.
        let mut pairs = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match pairs.iter().position(|(hash, _)| *hash == wanted.hash) {
            Some(at) => pairs.remove(at).1,
            None => Arc::new(ClientPair::new(wanted.trust.clone())),
        };
        let is_idle = |pair: &Arc<ClientPair>| Arc::strong_count(pair) == 1;
        let idle = pairs.iter().filter(|(_, pair)| is_idle(pair)).count();
        let mut surplus = idle.saturating_sub(MAX_IDLE - 1);
        pairs.retain(|(_, pair)| {
            let is_dropped = surplus > 0 && is_idle(pair);
            surplus -= usize::from(is_dropped);
            !is_dropped
        });
        pairs.push((wanted.hash, Arc::clone(&pair)));
        pair
    }

    /// A client of `pair`. `fresh`: keeps no connection, so each of its requests opens one.
    pub(super) fn client(
        &self,
        pair: &ClientPair,
        options: &CloudOptions,
        fresh: bool,
    ) -> Result<Client, NoAnswer> {
        let slot = &pair.built[usize::from(fresh)];
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let client = client(options, &pair.trust, &self.open, fresh).map_err(|_| {
            let text = "cannot be queried: its authorities cannot be used";
            NoAnswer::Failed(FailureKind::Internal, text.to_owned())
        })?;
        // Of two that were built at once, one stays.
        Ok(slot.get_or_init(|| client).clone())
    }
}

fn client(
    options: &CloudOptions,
    trust: &Trust,
    open: &Connections,
    fresh: bool,
) -> Result<Client, rustls::Error> {
    let idle = if fresh { 0 } else { IDLE_CONNECTIONS };
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(idle)
        .http1_max_buf_size(MAX_HEADERS as usize)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_AFTER);
    let connector = connector(options, tls(trust)?, open.clone());
    Ok(builder.build(connector))
}

/// TLS with authorities beside the system's, whose certificates all clients share.
fn tls(trust: &Trust) -> Result<ClientConfig, rustls::Error> {
    let verifier = OwnOrSystem::new(trust)?;
    let mut tls = ClientConfig::builder_with_provider(Arc::clone(verifier.provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Other clients are as many as tenants want, and a host may make its sessions large.
    tls.resumption = if trust.is_default() {
        Resumption::in_memory_sessions(SESSIONS)
    } else {
        Resumption::disabled()
    };
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(authority: u32) -> Clients {
        Clients::of(Trust {
            authorities: [authority.to_le_bytes().to_vec().into()].into(),
            accept_any: false,
        })
        .unwrap()
    }

    fn cache() -> ClientCache {
        let _ = rustls::crypto::ring::default_provider().install_default();
        ClientCache::new(&CloudOptions::default()).unwrap()
    }

    fn kept(cache: &ClientCache) -> usize {
        cache.others.lock().unwrap().len()
    }

    #[test]
    fn equal_trust_shares_its_clients_and_no_other_does() {
        let cache = cache();
        let one = cache.get(Some(&clients(1)));
        assert!(Arc::ptr_eq(&one, &cache.get(Some(&clients(1)))));
        assert!(!Arc::ptr_eq(&one, &cache.get(Some(&clients(2)))));
        assert!(!Arc::ptr_eq(&one, &cache.get(None)));
        assert!(Clients::of(Trust::default()).is_none());
        let any = |authority| {
            let trust = clients(authority).trust;
            Clients::of(Trust {
                accept_any: true,
                ..trust
            })
        };
        let careless = cache.get(any(1).as_ref());
        assert!(!Arc::ptr_eq(&careless, &one));
        assert!(Arc::ptr_eq(&careless, &cache.get(any(2).as_ref())));
        // The limits of two certificates are part of the hash.
        let list = |ders: &[&[u8]]| Trust {
            authorities: ders.iter().map(|der| der.to_vec().into()).collect(),
            accept_any: false,
        };
        assert_ne!(list(&[b"ab", b"c"]).hash(), list(&[b"a", b"bc"]).hash());
    }

    #[test]
    fn only_the_default_client_keeps_tls_sessions() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = |trust: &Trust| format!("{:?}", tls(trust).unwrap().resumption);
        assert!(store(&Trust::default()).contains("ClientSessionMemoryCache"));
        let careless = Trust {
            accept_any: true,
            ..Trust::default()
        };
        assert!(store(&careless).contains("NoClientSessionStorage"));
    }

    /// The system's certificates alone take more than 100 KiB.
    #[test]
    fn a_client_with_authorities_of_its_own_shares_those_of_the_system() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let cache = cache();
        let options = CloudOptions::default();
        let trust = Trust {
            authorities: [certificate.der().clone()].into(),
            accept_any: false,
        };
        let clients = Clients::of(trust).unwrap();
        let mut kept = Vec::new();
        // The first one reads the system's.
        for _ in 0..2 {
            let pair = Arc::new(ClientPair::new(clients.trust.clone()));
            let info = allocation_counter::measure(|| {
                kept.push(cache.client(&pair, &options, false).unwrap());
            });
            println!("{info:?}");
            assert!(
                kept.len() == 1 || info.bytes_current < 64 * 1024,
                "{info:?}"
            );
        }
    }

    #[test]
    fn of_700_trust_settings_those_in_use_and_the_latest_keep_their_clients() {
        let cache = cache();
        let in_use: Vec<_> = (0..40).map(|n| cache.get(Some(&clients(n)))).collect();
        for n in 40..700 {
            cache.get(Some(&clients(n)));
            assert!(kept(&cache) <= in_use.len() + MAX_IDLE);
        }
        for (n, pair) in (0..).zip(&in_use) {
            assert!(Arc::ptr_eq(pair, &cache.get(Some(&clients(n)))), "{n}");
        }
        let latest = Arc::downgrade(&cache.get(Some(&clients(699))));
        drop(in_use);
        for n in 700..731 {
            cache.get(Some(&clients(n)));
        }
        assert!(latest.strong_count() > 0);
        cache.get(Some(&clients(731)));
        assert_eq!((latest.strong_count(), kept(&cache)), (0, MAX_IDLE));
    }
}
