//! Who logged in, as the answer to a login names it.

use super::Keystone;
use crate::{
    auth::breaker::LoginIdentity,
    config::{DomainRef, EntityRef, Identity},
    http::Answer,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Body {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: User,
}

#[derive(Deserialize)]
struct User {
    id: String,
    name: String,
}

impl Keystone<'_> {
    /// The ways to name the user whose password was accepted; none if the answer does not show them.
    pub(super) fn spellings(self, answer: &Answer) -> Vec<LoginIdentity> {
        let is_user = matches!(self.login.identity, Identity::Password { .. });
        let body = answer.body.as_deref().ok().filter(|_| is_user);
        let body = body.and_then(|body| serde_json::from_slice::<Body>(body).ok());
        let Some(User { id, name }) = body.map(|body| body.token.user) else {
            return Vec::new();
        };
        let domain = DomainRef::Name(String::new());
        let spellings = [EntityRef::Id(id), EntityRef::Name { name, domain }];
        let host = self.login.auth_url.host();
        let identities = spellings
            .iter()
            .map(|user| LoginIdentity::of_user(user, host));
        identities.collect()
    }
}
