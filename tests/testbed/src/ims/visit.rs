//! A request in work, in the log and on standard output.

use super::{
    log::{Credential, Kind},
    server::{Route, Shared},
};
use axum::{
    extract::Request,
    http::{Method, StatusCode},
};
use std::{sync::Arc, time::Instant};

/// A request in work: logged when it comes and, however that happens, when it ends.
pub(super) struct Visit {
    shared: Arc<Shared>,
    kind: Kind,
    pub(super) number: u64,
    method: Method,
    path: String,
    credential: Credential,
    since: Instant,
    status: Option<StatusCode>,
}

impl Visit {
    pub(super) fn begin(shared: &Arc<Shared>, route: &Route, request: &Request) -> Self {
        let kind = match route {
            Route::Poll { key, .. } => Kind::Poll(key.clone()),
            Route::Login { .. } => Kind::Login,
            Route::Revoke | Route::Unknown => Kind::Other,
        };
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let credential = shared.iam().credential(request.headers());
        let number = shared
            .log()
            .arrived(&kind, shared.age(), method.as_str(), &path, credential);
        shared.announce_arrival();
        Self {
            shared: Arc::clone(shared),
            kind,
            number,
            method,
            path,
            credential,
            since: Instant::now(),
            status: None,
        }
    }

    /// Notes what the request turned out to bring.
    pub(super) fn proved(&mut self, credential: Credential) {
        self.credential = credential;
        self.shared.log().proved(self.number, credential);
    }

    pub(super) fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        self.shared.log().ended(&self.kind, self.number, status);
        tracing::info!(
            method = %self.method,
            path = self.path,
            credential = ?self.credential,
            status,
            milliseconds = self.since.elapsed().as_millis(),
            "request"
        );
    }
}
