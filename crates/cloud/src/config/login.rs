//! How an entry's requests are authorised: the fields of `auth`, and those that some files have
//! beside it.

use super::{
    Agency, ApplicationCredentialRef, Auth, DomainRef, Endpoint, EntityRef, Identity, Keys,
    KeystoneLogin,
    clouds_yaml::RawCloud,
    entry::{Endpoints, Parser},
    fields::Field,
};
use crate::secret::Secret;
use image_export_model::ConfigurationError;
use secrecy::ExposeSecret;

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
        endpoints: &Endpoints,
    ) -> Result<(Auth, Option<EntityRef>), ConfigurationError> {
        let method = self.method(raw)?;
        if method == Method::Keys {
            return self.with_keys(raw, endpoints);
        }
        let any_domain = domain(raw, Field::DomainId, Field::DomainName);
        let default = domain(raw, Field::DefaultDomainId, Field::DefaultDomainName);
        let user_domain = domain(raw, Field::UserDomainId, Field::UserDomainName)
            .or_else(|| any_domain.clone())
            .or_else(|| default.clone());
        let project_domain = domain(raw, Field::ProjectDomainId, Field::ProjectDomainName)
            .or(any_domain)
            .or_else(|| user_domain.clone());
        let project = self.entity(
            raw.text(Field::ProjectId),
            raw.text(Field::ProjectName),
            project_domain,
            Field::ProjectDomainName,
        )?;
        let agency = self.agency(raw, project.as_ref())?;
        if method == Method::Token
            && agency.is_none()
            && let Some(endpoint) = endpoints.image.clone()
        {
            let token = self.token(raw)?;
            return Ok((Auth::Token { token, endpoint }, project));
        }
        let auth_url = endpoints
            .auth_url
            .clone()
            .ok_or_else(|| self.missing(Field::AuthUrl))?;
        let identity = self.identity(method, raw, user_domain)?;
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
        domain_field: Field,
    ) -> Result<Option<EntityRef>, ConfigurationError> {
        if let Some(id) = id {
            return Ok(Some(EntityRef::Id(id)));
        }
        let Some(name) = name else {
            return Ok(None);
        };
        let domain = domain.ok_or_else(|| self.missing(domain_field))?;
        Ok(Some(EntityRef::Name { name, domain }))
    }

    /// Without `auth_type`, the method for which there is a secret. Keys often stand beside a password: other
    /// services of the same cloud take only them.
    fn method(&self, raw: &mut RawCloud) -> Result<Method, ConfigurationError> {
        let has_keys = raw.has(Field::AccessKey) || raw.has(Field::SecretKey);
        match raw.text(Field::AuthType).as_deref() {
            None if raw.has(Field::Password) => Ok(Method::Password),
            None if raw.has(Field::Token) => Ok(Method::Token),
            None if raw.has(Field::ApplicationCredentialSecret) => {
                Ok(Method::ApplicationCredential)
            }
            None if has_keys => Ok(Method::Keys),
            None | Some("password" | "v3password") => Ok(Method::Password),
            Some("token" | "v3token") => Ok(Method::Token),
            Some("v3applicationcredential" | "application_credential") => {
                Ok(Method::ApplicationCredential)
            }
            Some("aksk") => Ok(Method::Keys),
            Some(_) => Err(self.wrong(
                Field::AuthType,
                "is not supported; write password, token, v3applicationcredential or aksk",
            )),
        }
    }

    /// Access keys know no logins, so a project's domain does not matter, and its name only for the region.
    fn with_keys(
        &self,
        raw: &mut RawCloud,
        endpoints: &Endpoints,
    ) -> Result<(Auth, Option<EntityRef>), ConfigurationError> {
        let keys = self.keys(raw)?;
        if raw.has(Field::AgencyName) {
            return Err(self.invalid(
                "an agency can be assumed with a password, token or application credential, not with ak and sk",
            ));
        }
        let endpoint = match &endpoints.image {
            Some(endpoint) => endpoint.clone(),
            None => self.regional(endpoints, raw.region_of_project().as_deref())?,
        };
        let project = raw.text(Field::ProjectId).map(EntityRef::Id);
        Ok((Auth::Keys { keys, endpoint }, project))
    }

    fn identity(
        &self,
        method: Method,
        raw: &mut RawCloud,
        user_domain: Option<DomainRef>,
    ) -> Result<Identity, ConfigurationError> {
        match method {
            Method::Password | Method::Keys => Ok(Identity::Password {
                user: self.user(raw, user_domain)?,
                password: self.secret(raw, Field::Password)?,
            }),
            Method::Token => Ok(Identity::Token(self.token(raw)?)),
            Method::ApplicationCredential => {
                let id = raw.text(Field::ApplicationCredentialId);
                let name = raw.text(Field::ApplicationCredentialName);
                let credential = match (id, name) {
                    (Some(id), _) => ApplicationCredentialRef::Id(id),
                    (None, Some(name)) => ApplicationCredentialRef::Name {
                        name,
                        user: self.user(raw, user_domain)?,
                    },
                    (None, None) => return Err(self.missing(Field::ApplicationCredentialId)),
                };
                Ok(Identity::ApplicationCredential {
                    credential,
                    secret: self.secret(raw, Field::ApplicationCredentialSecret)?,
                })
            }
        }
    }

    fn user(
        &self,
        raw: &mut RawCloud,
        domain: Option<DomainRef>,
    ) -> Result<EntityRef, ConfigurationError> {
        let (id, name) = (raw.text(Field::UserId), raw.text(Field::Username));
        self.entity(id, name, domain, Field::UserDomainName)?
            .ok_or_else(|| self.missing(Field::Username))
    }

    fn secret(&self, raw: &mut RawCloud, field: Field) -> Result<Secret, ConfigurationError> {
        raw.secret(field).ok_or_else(|| self.missing(field))
    }

    fn token(&self, raw: &mut RawCloud) -> Result<Secret, ConfigurationError> {
        let token = self.secret(raw, Field::Token)?;
        self.header_safe(Field::Token, token)
    }

    fn keys(&self, raw: &mut RawCloud) -> Result<Keys, ConfigurationError> {
        let access = raw.text(Field::AccessKey);
        let access = access.ok_or_else(|| self.missing(Field::AccessKey))?;
        let secret_key = self.secret(raw, Field::SecretKey)?;
        if access.len() > 128 || !access.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let problem = "is not an access key: those are letters and digits";
            return Err(self.wrong(Field::AccessKey, problem));
        }
        let security_token = raw.secret(Field::SecurityToken);
        Ok(Keys {
            access,
            secret: trimmed(secret_key),
            security_token: security_token
                .map(|token| self.header_safe(Field::SecurityToken, token))
                .transpose()?,
        })
    }

    /// The agency, and the project that is delegated by it. Both are in the domain of the agency's owner;
    /// `own_project` is the caller's.
    fn agency(
        &self,
        raw: &mut RawCloud,
        own_project: Option<&EntityRef>,
    ) -> Result<Option<(Agency, Option<EntityRef>)>, ConfigurationError> {
        let Some(name) = raw.text(Field::AgencyName) else {
            return Ok(None);
        };
        let domain = domain(raw, Field::AgencyDomainId, Field::AgencyDomainName)
            .ok_or_else(|| self.missing(Field::AgencyDomainName))?;
        let delegated = raw.text(Field::DelegatedProject);
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
        of_project: Option<&str>,
    ) -> Result<Endpoint, ConfigurationError> {
        let region = endpoints
            .region
            .as_deref()
            .or(of_project)
            .ok_or_else(|| self.missing(Field::RegionName))?;
        let endpoint = Endpoint::image_service(endpoints.auth_url.as_ref(), region, self.policy)
            .ok_or_else(|| self.missing(Field::ImageEndpoint))?;
        self.endpoint(Field::RegionName, endpoint)
    }
}

/// A secret without the space around it, and without a copy where there is none.
pub(super) fn trimmed(secret: Secret) -> Secret {
    let written = secret.expose_secret();
    let trimmed = written.trim();
    if trimmed.len() == written.len() {
        secret
    } else {
        trimmed.into()
    }
}

fn domain(raw: &mut RawCloud, id: Field, name: Field) -> Option<DomainRef> {
    let (id, name) = (raw.text(id), raw.text(name));
    id.map(DomainRef::Id).or_else(|| name.map(DomainRef::Name))
}
