//! Access keys: whether a signed request may pass.

use super::{AccessKey, Sums, lock::Lock};
use crate::ims::{
    Answer, refusal,
    signature::{self, SignatureError},
};
use axum::http::{HeaderMap, Method};
use k8s_openapi::jiff::Timestamp;
use secrecy::ExposeSecret;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How far `X-Sdk-Date` may be from the simulator's clock, either way.
pub const SIGNATURE_WINDOW: Duration = Duration::from_secs(15 * 60);

/// What the verdict on a request depends on.
pub(in crate::ims) struct Signed<'a> {
    pub(in crate::ims) method: &'a Method,
    pub(in crate::ims) path: &'a str,
    pub(in crate::ims) query: Option<&'a str>,
    pub(in crate::ims) headers: &'a HeaderMap,
    pub(in crate::ims) body: &'a [u8],
}

struct Entry {
    key: AccessKey,
    enabled: bool,
    lock: Lock,
}

#[derive(Default)]
pub(super) struct Keys(HashMap<String, Entry>);

impl Keys {
    pub(super) fn add(&mut self, key: AccessKey) {
        let entry = Entry {
            key,
            enabled: true,
            lock: Lock::default(),
        };
        self.0.insert(entry.key.access_key.clone(), entry);
    }

    /// Whether there was such a key.
    pub(super) fn remove(&mut self, access_key: &str) -> bool {
        self.0.remove(access_key).is_some()
    }

    /// Whether there is such a key.
    pub(super) fn enable(&mut self, access_key: &str, enabled: bool) -> bool {
        let entry = self.0.get_mut(access_key);
        entry.map(|entry| entry.enabled = enabled).is_some()
    }

    pub(super) fn unlock(&mut self) {
        for entry in self.0.values_mut() {
            entry.lock.right();
        }
    }

    /// The project that the request is for; else the error answer.
    pub(super) fn verify(
        &mut self,
        request: &Signed<'_>,
        path_project: Option<&str>,
        clock: Timestamp,
        lock_length: Duration,
        sums: &mut Sums,
    ) -> Result<String, Answer> {
        let now = Instant::now();
        let access_key = signature::access_key(request.headers)
            .ok_or_else(|| malformed(SignatureError::Malformed))?;
        let entry = self
            .0
            .get_mut(access_key)
            .filter(|entry| entry.enabled)
            .ok_or_else(|| refusal::key_unknown(access_key))?;
        if entry.lock.holds(now) {
            return Err(refusal::key_locked());
        }
        let signed_at = signature::signed_at(request.headers).map_err(malformed)?;
        if clock.duration_since(signed_at).unsigned_abs() > SIGNATURE_WINDOW {
            return Err(refusal::signature_expired());
        }
        let verified = signature::verify_signature(
            request.method.as_str(),
            request.path,
            request.query,
            request.headers,
            request.body,
            entry.key.secret_key.expose_secret(),
        );
        match verified {
            Ok(()) => entry.lock.right(),
            Err(SignatureError::Mismatch) => {
                sums.signature_failures += 1;
                if entry.lock.wrong(now, lock_length) {
                    sums.key_locks += 1;
                }
                return Err(refusal::signature_wrong());
            }
            Err(error) => return Err(malformed(error)),
        }
        let text = |name: &str| request.headers.get(name)?.to_str().ok();
        let wanted = entry.key.security_token.as_ref();
        if wanted.is_some_and(|token| text("x-security-token") != Some(token.expose_secret())) {
            return Err(refusal::security_token_wrong());
        }
        text("x-project-id")
            .filter(|project| path_project.is_none_or(|path| path == *project))
            .filter(|project| entry.key.opens(project))
            .map(str::to_owned)
            .ok_or_else(refusal::project_mismatch)
    }
}

impl AccessKey {
    fn opens(&self, project: &str) -> bool {
        let projects = self.projects.as_ref();
        projects.is_none_or(|projects| projects.iter().any(|id| id == project))
    }
}

/// Nobody's secret key was tried, so this does not count as a wrong signature.
fn malformed(error: SignatureError) -> Answer {
    refusal::unauthorized(&format!("verify aksk signature fail, {error}"))
}
