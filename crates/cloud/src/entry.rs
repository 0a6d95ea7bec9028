//! What one entry of a `clouds.yaml` means: raw values in, a checked [`Entry`] out.

use super::{
    Origin,
    clouds_yaml::{self, RawAuth, RawCloud, Secret, refusal},
    endpoint::{Endpoint, JobPath},
    hosts::EndpointPolicy,
    signature::Keys,
    text::Redactor,
};
use image_export_model::{ConfigurationError, ConfigurationReason};
use secrecy::{ExposeSecret, SecretString};

/// Longer tokens fit into no gateway's header limit.
pub(super) const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// A checked cloud entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) login: Login,
    /// The project that tokens are for; `None`: the one that is asked for.
    pub(super) project: Option<ProjectRef>,
    pub(super) region: Option<String>,
    /// Catalog interface: `public`, `internal` or `admin`.
    pub(super) interface: String,
    /// `image_endpoint_override`.
    pub(super) image_endpoint: Option<Endpoint>,
    /// Where the entry differs from the operator's own setting.
    pub(super) job_path: Option<JobPath>,
    /// A path, or the certificates themselves in PEM.
    pub(super) cacert: Option<String>,
    /// `false`: any certificate will do.
    pub(super) verify: bool,
}

/// How requests are authorised.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// By tokens from a Keystone.
    Keystone {
        auth_url: Endpoint,
        identity: Identity,
        /// Somebody else's account to act for.
        agency: Option<Agency>,
    },
    /// By a token that somebody else got, used as it is.
    Token(SecretString),
    /// By signing each request, for the image service at this endpoint.
    Keys { keys: Keys, endpoint: Endpoint },
}

/// Who signs in.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    Password {
        user: UserRef,
        password: SecretString,
    },
    Token(SecretString),
    /// Tied to one project by the cloud.
    ApplicationCredential {
        credential: ApplicationCredentialRef,
        secret: SecretString,
    },
}

/// Access to another account that its owner has given to ours.
#[derive(Clone, Debug)]
pub(super) struct Agency {
    pub(super) name: String,
    pub(super) domain: DomainRef,
    /// What the caller itself signs in to; `None`: its domain.
    pub(super) caller_project: Option<ProjectRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ApplicationCredentialRef {
    Id(String),
    Name { name: String, user: UserRef },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum UserRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProjectRef {
    Id(String),
    Name { name: String, domain: DomainRef },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum DomainRef {
    Id(String),
    Name(String),
}

impl Entry {
    /// Parses entry `cloud` of `yaml`, the value of key `clouds.yaml` of `origin`.
    pub(super) fn parse(
        yaml: &[u8],
        cloud: &str,
        origin: &Origin,
        policy: &EndpointPolicy,
    ) -> Result<Self, ConfigurationError> {
        let raw = clouds_yaml::read(yaml, cloud, origin)?;
        let place = Place {
            cloud: &clouds_yaml::shown(cloud),
            origin,
        };
        place.entry(raw, policy)
    }

    /// Knows the entry's own secrets.
    pub(super) fn redactor(&self) -> Redactor {
        match &self.login {
            Login::Keystone { identity, .. } => Redactor::new([identity.secret()]),
            Login::Token(token) => Redactor::new([token]),
            Login::Keys { keys, .. } => Redactor::new(keys.secrets()),
        }
    }
}

impl Identity {
    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Password { password, .. } => password,
            Self::Token(token) => token,
            Self::ApplicationCredential { secret, .. } => secret,
        }
    }
}

/// `auth_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Password,
    Token,
    ApplicationCredential,
    Keys,
}

/// What an entry says about where services are.
struct Places {
    auth_url: Option<Endpoint>,
    region: Option<String>,
    image_endpoint: Option<Endpoint>,
}

/// Names the entry and its fields in messages.
struct Place<'a> {
    cloud: &'a str,
    origin: &'a Origin,
}

impl Place<'_> {
    fn entry(
        &self,
        mut raw: RawCloud,
        policy: &EndpointPolicy,
    ) -> Result<Entry, ConfigurationError> {
        let mut auth = raw.auth.take().unwrap_or_default();
        let region = text(raw.region_name.take());
        let image_endpoint = text(raw.image_endpoint_override.take())
            .map(|url| {
                Endpoint::image(&url, None, policy)
                    .map_err(|bad| bad.refusal(&self.field("image_endpoint_override"), self.origin))
            })
            .transpose()?;
        let job_path = text(raw.image_job_path.take())
            .map(|name| {
                name.parse().map_err(|known| {
                    self.invalid(&format!("{} is {known}", self.field("image_job_path")))
                })
            })
            .transpose()?;
        let places = Places {
            auth_url: text(auth.auth_url.take())
                .map(|url| self.auth_url(&url, region.as_deref(), policy))
                .transpose()?,
            region,
            image_endpoint,
        };
        let (login, project) = self.login(&mut raw, &mut auth, &places, policy)?;
        Ok(Entry {
            login,
            project,
            region: places.region,
            interface: interface(raw.interface),
            image_endpoint: places.image_endpoint,
            job_path,
            cacert: text(raw.cacert),
            verify: verify(raw.verify),
        })
    }

    /// How requests are authorised, and the project that tokens are for.
    fn login(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
        places: &Places,
        policy: &EndpointPolicy,
    ) -> Result<(Login, Option<ProjectRef>), ConfigurationError> {
        let domain = domain(auth.domain_id.take(), auth.domain_name.take());
        let user_domain =
            self::domain(auth.user_domain_id.take(), auth.user_domain_name.take()).or(domain);
        let project = self.project(auth, user_domain.as_ref())?;
        let method = self.method(text(raw.auth_type.take()).as_deref())?;
        let keys = self.keys(raw, auth)?;
        let agency = self.agency(raw, auth)?;

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
            let endpoint = match &places.image_endpoint {
                Some(endpoint) => endpoint.clone(),
                None => self.regional(places, project.as_ref(), policy)?,
            };
            return Ok((Login::Keys { keys, endpoint }, project));
        }

        let as_it_is =
            method == Method::Token && places.image_endpoint.is_some() && agency.is_none();
        if places.auth_url.is_none() && !as_it_is {
            return Err(self.missing("auth.auth_url"));
        }
        let identity = self.identity(method, auth, user_domain)?;
        let auth_url = match (&identity, &places.auth_url) {
            (Identity::Token(token), _) if as_it_is => {
                return Ok((Login::Token(token.clone()), project));
            }
            (_, None) => return Err(self.missing("auth.auth_url")),
            (_, Some(auth_url)) => auth_url.clone(),
        };
        let delegated = text(
            raw.delegated_project
                .take()
                .or(auth.delegated_project.take()),
        );
        let (agency, project) = match agency {
            None => (None, project),
            Some((name, domain)) => {
                let theirs = delegated.map(|name| ProjectRef::Name {
                    name,
                    domain: domain.clone(),
                });
                let agency = Agency {
                    name,
                    domain,
                    caller_project: project,
                };
                (Some(agency), theirs)
            }
        };
        let login = Login::Keystone {
            auth_url,
            identity,
            agency,
        };
        Ok((login, project))
    }

    fn project(
        &self,
        auth: &mut RawAuth,
        user_domain: Option<&DomainRef>,
    ) -> Result<Option<ProjectRef>, ConfigurationError> {
        let domain = domain(
            auth.project_domain_id.take(),
            auth.project_domain_name.take(),
        );
        match (text(auth.project_id.take()), text(auth.project_name.take())) {
            (Some(id), _) => Ok(Some(ProjectRef::Id(id))),
            (None, Some(name)) => {
                let domain = domain
                    .or_else(|| user_domain.cloned())
                    .ok_or_else(|| self.missing("auth.project_domain_name"))?;
                Ok(Some(ProjectRef::Name { name, domain }))
            }
            (None, None) => Ok(None),
        }
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
            Some(_) => Err(self.invalid(&format!(
                "{} is not supported; write password, token, v3applicationcredential or aksk",
                self.field("auth_type")
            ))),
        }
    }

    fn identity(
        &self,
        method: Method,
        auth: &mut RawAuth,
        user_domain: Option<DomainRef>,
    ) -> Result<Identity, ConfigurationError> {
        let user = match (text(auth.user_id.take()), text(auth.username.take())) {
            (Some(id), _) => Some(Ok(UserRef::Id(id))),
            (None, Some(name)) => Some(
                user_domain
                    .map(|domain| UserRef::Name { name, domain })
                    .ok_or_else(|| self.missing("auth.user_domain_name")),
            ),
            (None, None) => None,
        };
        let user = || user.unwrap_or_else(|| Err(self.missing("auth.username")));
        match method {
            Method::Password | Method::Keys => Ok(Identity::Password {
                user: user()?,
                password: present(auth.password.take())
                    .ok_or_else(|| self.missing("auth.password"))?,
            }),
            Method::Token => {
                let token = present(auth.token.take()).ok_or_else(|| self.missing("auth.token"))?;
                Ok(Identity::Token(self.header_safe("auth.token", &token)?))
            }
            Method::ApplicationCredential => {
                let credential = match (
                    text(auth.application_credential_id.take()),
                    text(auth.application_credential_name.take()),
                ) {
                    (Some(id), _) => ApplicationCredentialRef::Id(id),
                    (None, Some(name)) => ApplicationCredentialRef::Name {
                        name,
                        user: user()?,
                    },
                    (None, None) => return Err(self.missing("auth.application_credential_id")),
                };
                Ok(Identity::ApplicationCredential {
                    credential,
                    secret: present(auth.application_credential_secret.take())
                        .ok_or_else(|| self.missing("auth.application_credential_secret"))?,
                })
            }
        }
    }

    /// Access key and secret key, where there are any; one without the other is a mistake.
    fn keys(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
    ) -> Result<Option<Keys>, ConfigurationError> {
        let access = text(raw.ak.take()).or_else(|| text(auth.ak.take()));
        let secret = present(raw.sk.take()).or_else(|| present(auth.sk.take()));
        let security_token =
            present(raw.security_token.take()).or_else(|| present(auth.security_token.take()));
        let (access, secret) = match (access, secret) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(self.missing("sk")),
            (None, Some(_)) => return Err(self.missing("ak")),
            (Some(access), Some(secret)) => (access, secret),
        };
        if access.len() > 128 || !access.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(self.invalid(&format!(
                "{} is not an access key: those are letters and digits",
                self.field("ak")
            )));
        }
        Ok(Some(Keys {
            access,
            secret: secret.expose_secret().trim().into(),
            security_token: security_token
                .map(|token| self.header_safe("security_token", &token))
                .transpose()?,
        }))
    }

    fn agency(
        &self,
        raw: &mut RawCloud,
        auth: &mut RawAuth,
    ) -> Result<Option<(String, DomainRef)>, ConfigurationError> {
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
        Ok(Some((name, domain)))
    }

    /// The image service of the entry's region, where no catalog can be asked.
    fn regional(
        &self,
        places: &Places,
        project: Option<&ProjectRef>,
        policy: &EndpointPolicy,
    ) -> Result<Endpoint, ConfigurationError> {
        let of_project = match project {
            Some(ProjectRef::Name { name, .. }) => name.split('_').next(),
            _ => None,
        };
        let region = places
            .region
            .as_deref()
            .or(of_project)
            .ok_or_else(|| self.missing("region_name"))?;
        let endpoint = match &places.auth_url {
            Some(auth_url) => auth_url.sibling_image_service(region, policy),
            None => Endpoint::otc_image_service(region, policy),
        };
        endpoint
            .ok_or_else(|| self.missing("image_endpoint_override"))?
            .map_err(|bad| bad.refusal(&self.field("region_name"), self.origin))
    }

    /// OTC's own examples write `https://iam.{region_name}.otc.t-systems.com/v3`.
    fn auth_url(
        &self,
        url: &str,
        region: Option<&str>,
        policy: &EndpointPolicy,
    ) -> Result<Endpoint, ConfigurationError> {
        const PLACEHOLDER: &str = "{region_name}";
        let url = match region {
            Some(region) => url.replace(PLACEHOLDER, region),
            None if url.contains(PLACEHOLDER) => return Err(self.missing("region_name")),
            None => url.to_owned(),
        };
        Endpoint::keystone(&url, policy)
            .map_err(|bad| bad.refusal(&self.field("auth.auth_url"), self.origin))
    }

    /// A token goes into a header, where line breaks and the like cannot go.
    fn header_safe(
        &self,
        name: &str,
        token: &SecretString,
    ) -> Result<SecretString, ConfigurationError> {
        let token = token.expose_secret().trim();
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.invalid(&format!(
                "{} is not a token: it is longer than 32 KiB or holds spaces or other characters that no token has",
                self.field(name)
            )));
        }
        Ok(token.into())
    }

    fn field(&self, name: &str) -> String {
        format!("clouds.{}.{name}", self.cloud)
    }

    fn missing(&self, name: &str) -> ConfigurationError {
        self.invalid(&format!("{} is missing or empty", self.field(name)))
    }

    fn invalid(&self, problem: &str) -> ConfigurationError {
        refusal(
            ConfigurationReason::CredentialsInvalid,
            format!("in clouds.yaml of {}, {problem}", self.origin),
        )
    }
}

/// A value without surrounding space; empty counts as absent.
fn text(value: Option<String>) -> Option<String> {
    value
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// A secret exactly as written; blank counts as absent.
fn present(value: Option<Secret>) -> Option<SecretString> {
    value
        .map(|secret| secret.0)
        .filter(|secret| !secret.expose_secret().trim().is_empty())
}

fn domain(id: Option<String>, name: Option<String>) -> Option<DomainRef> {
    text(id)
        .map(DomainRef::Id)
        .or_else(|| text(name).map(DomainRef::Name))
}

/// `public`, also for the older spelling `publicURL`.
fn interface(raw: Option<String>) -> String {
    let interface = text(raw).map_or_else(|| "public".to_owned(), |text| text.to_ascii_lowercase());
    interface
        .strip_suffix("url")
        .map(str::to_owned)
        .unwrap_or(interface)
}

/// Only a plain no switches the check off; some files have a path here.
fn verify(raw: Option<String>) -> bool {
    let raw = text(raw).unwrap_or_default().to_ascii_lowercase();
    !matches!(raw.as_str(), "false" | "no" | "off" | "0")
}
