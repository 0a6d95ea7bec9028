//! Keystone v3, the identity service: a login is one `POST /auth/tokens`, for an agency two.

mod body;
mod catalog;
mod error;
mod grant;
mod login;

pub(crate) use error::LoginError;
pub(crate) use grant::Grant;

use super::breaker::Breakers;
use crate::{
    config::{CloudEntry, KeystoneLogin},
    http::{Clients, Http},
};

/// An identity service, as one cloud entry uses it.
#[derive(Clone, Copy)]
pub(crate) struct Keystone<'a> {
    pub(crate) http: &'a Http,
    pub(crate) clients: Option<&'a Clients>,
    pub(crate) breakers: &'a Breakers,
    pub(crate) entry: &'a CloudEntry,
    pub(crate) login: &'a KeystoneLogin,
}

impl<'a> Keystone<'a> {
    fn host(self) -> &'a str {
        self.login.auth_url.host()
    }
}
