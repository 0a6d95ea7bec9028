//! How an entry's requests are authorised: the fields of `auth`, and those that some files have
//! beside it.

use super::{
    Agency, ApplicationCredentialRef, Auth, DomainRef, Endpoint, EntityRef, Identity, Keys,
    KeystoneLogin,
    clouds_yaml::{RawAuth, RawCloud, Secret},
    entry::{Endpoints, Parser, text},
};
use image_export_model::ConfigurationError;
use secrecy::{ExposeSecret, SecretString};

/// `auth_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Password,
    Token,
    ApplicationCredential,
    Keys,
}

impl Parser<'_> {
    /// How requests are authorised, and the project that tokens are for.
    pub(super) fn auth(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
        endpoints: &Endpoints,
    ) -> Result<(Auth, Option<EntityRef>), ConfigurationError> {
        let user_domain = domain(auth.user_domain_id.take(), auth.user_domain_name.take())
            .or_else(|| domain(auth.domain_id.take(), auth.domain_name.take()));
        let project_domain = domain(
            auth.project_domain_id.take(),
            auth.project_domain_name.take(),
        );
        let project = self.entity(
            auth.project_id.take(),
            auth.project_name.take(),
            project_domain.or_else(|| user_domain.clone()),
            "auth.project_domain_name",
        )?;
        let method = self.method(text(raw.auth_type.take()).as_deref())?;
        let keys = self.keys(raw, auth)?;
        let agency = self.agency(raw, auth, project.as_ref())?;

        // Keys often stand beside a password: other services of the same cloud take only them.
        let only_keys = keys.is_some() && auth.password.is_none() && auth.token.is_none();
        let method = method.unwrap_or(if only_keys {
            Method::Keys
        } else {
            Method::Password
        });
        if method == Method::Keys {
            let keys = keys.ok_or_else(|| self.missing("ak"))?;
            if agency.is_some() {
                return Err(self.invalid(
                    "an agency can be assumed with a password, token or application credential, not with ak and sk",
                ));
            }
            let endpoint = match &endpoints.image {
                Some(endpoint) => endpoint.clone(),
                None => self.regional(endpoints, project.as_ref())?,
            };
            return Ok((Auth::Keys { keys, endpoint }, project));
        }
        if method == Method::Token
            && agency.is_none()
            && let Some(endpoint) = endpoints.image.clone()
        {
            let token = self.token(auth)?;
            return Ok((Auth::Token { token, endpoint }, project));
        }
        let auth_url = endpoints
            .auth_url
            .clone()
            .ok_or_else(|| self.missing("auth.auth_url"))?;
        let identity = self.identity(method, auth, user_domain)?;
        let (agency, project) = match agency {
            None => (None, project),
            Some((agency, delegated)) => (Some(agency), delegated),
        };
        let login = KeystoneLogin {
            auth_url,
            identity,
            agency,
        };
        Ok((Auth::Keystone(login), project))
    }

    /// A user or project: its id, else its name in `domain`.
    fn entity(
        &self,
        id: Option<String>,
        name: Option<String>,
        domain: Option<DomainRef>,
        domain_field: &str,
    ) -> Result<Option<EntityRef>, ConfigurationError> {
        if let Some(id) = text(id) {
            return Ok(Some(EntityRef::Id(id)));
        }
        let Some(name) = text(name) else {
            return Ok(None);
        };
        let domain = domain.ok_or_else(|| self.missing(domain_field))?;
        Ok(Some(EntityRef::Name { name, domain }))
    }

    fn method(&self, auth_type: Option<&str>) -> Result<Option<Method>, ConfigurationError> {
        match auth_type {
            None => Ok(None),
            Some("password" | "v3password") => Ok(Some(Method::Password)),
            Some("token" | "v3token") => Ok(Some(Method::Token)),
            Some("v3applicationcredential" | "application_credential") => {
                Ok(Some(Method::ApplicationCredential))
            }
            Some("aksk") => Ok(Some(Method::Keys)),
            Some(_) => Err(self.wrong(
                "auth_type",
                "is not supported; write password, token, v3applicationcredential or aksk",
            )),
        }
    }

    fn identity(
        &self,
        method: Method,
        auth: &mut RawAuth,
        user_domain: Option<DomainRef>,
    ) -> Result<Identity, ConfigurationError> {
        match method {
            Method::Password | Method::Keys => Ok(Identity::Password {
                user: self.user(auth, user_domain)?,
                password: secret(auth.password.take())
                    .ok_or_else(|| self.missing("auth.password"))?,
            }),
            Method::Token => Ok(Identity::Token(self.token(auth)?)),
            Method::ApplicationCredential => {
                let id = text(auth.application_credential_id.take());
                let name = text(auth.application_credential_name.take());
                let credential = match (id, name) {
                    (Some(id), _) => ApplicationCredentialRef::Id(id),
                    (None, Some(name)) => ApplicationCredentialRef::Name {
                        name,
                        user: self.user(auth, user_domain)?,
                    },
                    (None, None) => return Err(self.missing("auth.application_credential_id")),
                };
                Ok(Identity::ApplicationCredential {
                    credential,
                    secret: secret(auth.application_credential_secret.take())
                        .ok_or_else(|| self.missing("auth.application_credential_secret"))?,
                })
            }
        }
    }

    fn user(
        &self,
        auth: &mut RawAuth,
        domain: Option<DomainRef>,
    ) -> Result<EntityRef, ConfigurationError> {
        let (id, name) = (auth.user_id.take(), auth.username.take());
        self.entity(id, name, domain, "auth.user_domain_name")?
            .ok_or_else(|| self.missing("auth.username"))
    }

    fn token(&self, auth: &mut RawAuth) -> Result<SecretString, ConfigurationError> {
        let token = secret(auth.token.take()).ok_or_else(|| self.missing("auth.token"))?;
        self.header_safe("auth.token", &token)
    }

    /// Access key and secret key, where there are any; one without the other is an error.
    fn keys(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
    ) -> Result<Option<Keys>, ConfigurationError> {
        let access = text(raw.ak.take()).or_else(|| text(auth.ak.take()));
        let secret_key = secret(raw.sk.take()).or_else(|| secret(auth.sk.take()));
        let security_token =
            secret(raw.security_token.take()).or_else(|| secret(auth.security_token.take()));
        let (access, secret_key) = match (access, secret_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(self.missing("sk")),
            (None, Some(_)) => return Err(self.missing("ak")),
            (Some(access), Some(secret_key)) => (access, secret_key),
        };
        if access.len() > 128 || !access.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let problem = "is not an access key: those are letters and digits";
            return Err(self.wrong("ak", problem));
        }
        Ok(Some(Keys {
            access,
            secret: secret_key.expose_secret().trim().into(),
            security_token: security_token
                .map(|token| self.header_safe("security_token", &token))
                .transpose()?,
        }))
    }

    /// The agency, and the project that is delegated by it. Both are in the domain of the agency's owner;
    /// `own_project` is the caller's.
    fn agency(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
        own_project: Option<&EntityRef>,
    ) -> Result<Option<(Agency, Option<EntityRef>)>, ConfigurationError> {
        let either =
            |beside: Option<String>, inside: Option<String>| text(beside).or_else(|| text(inside));
        let Some(name) = either(raw.agency_name.take(), auth.agency_name.take()) else {
            return Ok(None);
        };
        let id = either(raw.agency_domain_id.take(), auth.agency_domain_id.take());
        let domain_name = either(
            raw.agency_domain_name.take(),
            auth.agency_domain_name.take(),
        );
        let domain = domain(id, domain_name).ok_or_else(|| self.missing("agency_domain_name"))?;
        let delegated = raw.delegated_project.take();
        let delegated = text(delegated.or(auth.delegated_project.take()));
        let project = delegated.map(|name| EntityRef::Name {
            name,
            domain: domain.clone(),
        });
        let agency = Agency {
            name,
            domain,
            caller_project: own_project.cloned(),
        };
        Ok(Some((agency, project)))
    }

    /// The image service of the entry's region, as access keys come with no catalog.
    fn regional(
        &self,
        endpoints: &Endpoints,
        project: Option<&EntityRef>,
    ) -> Result<Endpoint, ConfigurationError> {
        let of_project = match project {
            Some(EntityRef::Name { name, .. }) => name.split('_').next(),
            _ => None,
        };
        let region = endpoints
            .region
            .as_deref()
            .or(of_project)
            .ok_or_else(|| self.missing("region_name"))?;
        let endpoint = Endpoint::image_service(endpoints.auth_url.as_ref(), region, self.policy)
            .ok_or_else(|| self.missing("image_endpoint_override"))?;
        self.endpoint("region_name", endpoint)
    }
}

/// A secret exactly as written; blank counts as absent.
fn secret(value: Option<Secret>) -> Option<SecretString> {
    value
        .map(|secret| secret.0)
        .filter(|secret| !secret.expose_secret().trim().is_empty())
}

fn domain(id: Option<String>, name: Option<String>) -> Option<DomainRef> {
    text(id)
        .map(DomainRef::Id)
        .or_else(|| text(name).map(DomainRef::Name))
}
