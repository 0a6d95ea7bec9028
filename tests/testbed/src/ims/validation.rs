//! Tokens of a real Keystone, validated there each time: nothing is cached, so that expiry and
//! revocation count at once.

use super::iam::{Caller, Scope};
use crate::loopback;
use anyhow::{Context, ensure};
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use std::time::Duration;

/// Longest that one question to Keystone may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Keystone {
    /// Ends in `/v3`.
    url: String,
    client: Client,
}

/// Keystone's answer about a valid token.
pub(super) struct Validated {
    pub(super) scope: Scope,
    pub(super) holder: Caller,
}

/// Why a token is not taken.
pub(super) enum Unvouched {
    /// Keystone finds no such token, or no longer.
    Dead,
    /// Keystone gives no usable answer.
    Unavailable,
}

impl Keystone {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        ensure!(
            url.starts_with("http://") && url.ends_with("/v3"),
            "the URL of a Keystone is of the form http://127.0.0.1:5000/v3, not {url}"
        );
        let client = loopback::client(TIMEOUT)?
            .redirect(redirect::Policy::none())
            .build()
            .context("cannot prepare the client for Keystone")?;
        Ok(Self { url, client })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Asks with the token about itself.
    pub(super) async fn validate(&self, token: &str) -> Result<Validated, Unvouched> {
        let unavailable = |error: reqwest::Error| {
            tracing::warn!(error = %error.without_url(), "no answer from Keystone");
            Unvouched::Unavailable
        };
        let response = self
            .client
            .get(format!("{}/auth/tokens?nocatalog", self.url))
            .header("X-Auth-Token", token)
            .header("X-Subject-Token", token)
            .send()
            .await
            .map_err(unavailable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => {
                return Err(Unvouched::Dead);
            }
            status => {
                tracing::warn!(status = status.as_u16(), "Keystone is in trouble");
                return Err(Unvouched::Unavailable);
            }
        }
        let body: Body = response.json().await.map_err(unavailable)?;
        let Token { user, project } = body.token;
        Ok(Validated {
            scope: project.map_or(Scope::Unscoped, |project| Scope::Project(project.id)),
            holder: Caller {
                id: user.id,
                name: user.name,
                domain: user.domain.name,
                domain_id: user.domain.id,
            },
        })
    }
}

#[derive(Deserialize)]
struct Body {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: User,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    name: String,
    domain: Domain,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

#[derive(Deserialize)]
struct Domain {
    id: String,
    name: String,
}
