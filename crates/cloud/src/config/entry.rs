//! One entry of a `clouds.yaml`: raw values in, a checked [`CloudEntry`] out. How requests are
//! authorised is parsed in [`super::login`].

use super::{
    Auth, CloudsFile, Endpoint, EndpointPolicy, EntityRef, JobPath, MAX_TOKEN_BYTES, Place,
    clouds_yaml::{self, RawCloud},
    endpoint::InvalidUrl,
};
use crate::{http::Trust, outcome::configuration_error, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use reqwest::Certificate;
use secrecy::{ExposeSecret, SecretString};

/// Distinguishes certificates from the path of their file.
const PEM: &str = "-----BEGIN";

/// A checked cloud entry.
#[derive(Clone, Debug)]
pub(crate) struct CloudEntry {
    place: Place,
    /// Its name as messages show it.
    cloud: String,
    pub(crate) auth: Auth,
    /// The project that tokens are for; `None`: that of the job.
    pub(crate) project: Option<EntityRef>,
    pub(crate) region: Option<String>,
    /// Catalog interface: `public`, `internal` or `admin`.
    pub(crate) interface: String,
    /// `image_endpoint_override`.
    pub(crate) image_endpoint: Option<Endpoint>,
    /// Where the entry differs from the client's own setting.
    pub(crate) job_path: Option<JobPath>,
    pub(crate) trust: Trust,
    /// The file of certificates that the entry names.
    pub(crate) cacert_path: Option<String>,
    /// Knows the entry's own secrets, used or not.
    pub(crate) redactor: Redactor,
}

impl CloudEntry {
    /// Parses entry `cloud` of `file`. An error names place, entry and field, never a value.
    pub(crate) fn parse(
        file: &CloudsFile<'_>,
        cloud: &str,
        policy: &EndpointPolicy,
    ) -> Result<Self, ConfigurationError> {
        let yaml = file.clouds_yaml.ok_or_else(|| {
            configuration_error(
                ConfigurationReason::CredentialsNotFound,
                format!("{} has no key clouds.yaml", file.place),
            )
        })?;
        let raw = clouds_yaml::read(yaml, cloud, file.place)?;
        let redactor = Redactor::new(raw.secrets());
        let parser = Parser {
            cloud: &clouds_yaml::shown(cloud, &redactor),
            place: file.place,
            policy,
            redactor: &redactor,
        };
        parser.entry(raw, file.cacert)
    }

    /// Names it in messages.
    pub(crate) fn described(&self) -> String {
        format!("cloud \"{}\" in {}", self.cloud, self.place)
    }

    /// The project that the entry names by its id.
    pub(crate) fn project_id(&self) -> Option<&str> {
        match &self.project {
            Some(EntityRef::Id(id)) => Some(id),
            Some(EntityRef::Name { .. }) | None => None,
        }
    }
}

/// Parses one entry; names it and its fields in messages.
pub(super) struct Parser<'a> {
    pub(super) cloud: &'a str,
    pub(super) place: &'a Place,
    pub(super) policy: &'a EndpointPolicy,
    pub(super) redactor: &'a Redactor,
}

/// Where the services of an entry are.
pub(super) struct Endpoints {
    pub(super) auth_url: Option<Endpoint>,
    pub(super) region: Option<String>,
    pub(super) image: Option<Endpoint>,
}

impl Parser<'_> {
    fn entry(
        &self,
        mut raw: RawCloud,
        cacert: Option<&[u8]>,
    ) -> Result<CloudEntry, ConfigurationError> {
        let mut raw_auth = raw.auth.take().unwrap_or_default();
        let job_path = text(raw.image_job_path.take())
            .map(|name| {
                let parsed = name.parse();
                parsed.map_err(|known| self.wrong("image_job_path", &format!("is {known}")))
            })
            .transpose()?;
        let region = text(raw.region_name.take());
        let endpoints = Endpoints {
            image: text(raw.image_endpoint_override.take())
                .map(|url| {
                    let endpoint = Endpoint::image(&url, None, self.policy);
                    self.endpoint("image_endpoint_override", endpoint)
                })
                .transpose()?,
            auth_url: text(raw_auth.auth_url.take())
                .map(|url| self.auth_url(&url, region.as_deref()))
                .transpose()?,
            region,
        };
        let (auth, project) = self.auth(&mut raw, &mut raw_auth, &endpoints)?;
        // A path is skipped: whoever can read it gives its content, which goes before what is here.
        let (pem, cacert_path) = match text(raw.cacert) {
            Some(text) if text.contains(PEM) => (Some(text), None),
            path => (None, path),
        };
        let pem = cacert.or(pem.as_deref().map(str::as_bytes));
        Ok(CloudEntry {
            trust: self.trust(pem, accept_any(raw.verify))?,
            place: self.place.clone(),
            cloud: self.cloud.to_owned(),
            redactor: self.redactor.clone(),
            auth,
            project,
            region: endpoints.region,
            interface: interface(raw.interface),
            image_endpoint: endpoints.image,
            job_path,
            cacert_path,
        })
    }

    /// OTC's own examples write `https://iam.{region_name}.otc.t-systems.com/v3`.
    fn auth_url(&self, url: &str, region: Option<&str>) -> Result<Endpoint, ConfigurationError> {
        const PLACEHOLDER: &str = "{region_name}";
        let url = match region {
            Some(region) => url.replace(PLACEHOLDER, region),
            None if url.contains(PLACEHOLDER) => return Err(self.missing("region_name")),
            None => url.to_owned(),
        };
        self.endpoint("auth.auth_url", Endpoint::keystone(&url, self.policy))
    }

    fn trust(&self, pem: Option<&[u8]>, accept_any: bool) -> Result<Trust, ConfigurationError> {
        let authorities = match pem.map(Certificate::from_pem_bundle) {
            None => Vec::new(),
            Some(Ok(certificates)) if !certificates.is_empty() => certificates,
            Some(_) => {
                let cacert = self.place.cacert();
                return Err(configuration_error(
                    ConfigurationReason::CredentialsInvalid,
                    format!("{cacert} is not a list of certificates in PEM"),
                ));
            }
        };
        Ok(Trust {
            authorities,
            accept_any,
        })
    }

    /// The endpoint that `field` names.
    pub(super) fn endpoint(
        &self,
        field: &str,
        endpoint: Result<Endpoint, InvalidUrl>,
    ) -> Result<Endpoint, ConfigurationError> {
        endpoint
            .map_err(|invalid| invalid.into_error(&self.field(field), self.place, self.redactor))
    }

    /// A token goes into a header, which cannot hold line breaks and the like.
    pub(super) fn header_safe(
        &self,
        name: &str,
        token: &SecretString,
    ) -> Result<SecretString, ConfigurationError> {
        let token = token.expose_secret().trim();
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(self.wrong(
                name,
                "is not a token: it is longer than 32 KiB or holds spaces or other characters that no token has",
            ));
        }
        Ok(token.into())
    }

    pub(super) fn missing(&self, name: &str) -> ConfigurationError {
        self.wrong(name, "is missing or empty")
    }

    pub(super) fn wrong(&self, name: &str, problem: &str) -> ConfigurationError {
        self.invalid(&format!("{} {problem}", self.field(name)))
    }

    fn field(&self, name: &str) -> String {
        format!("clouds.{}.{name}", self.cloud)
    }

    pub(super) fn invalid(&self, problem: &str) -> ConfigurationError {
        configuration_error(
            ConfigurationReason::CredentialsInvalid,
            format!("in {}, {problem}", self.place.content()),
        )
    }
}

/// A value without surrounding space; empty counts as absent.
pub(super) fn text(value: Option<String>) -> Option<String> {
    value
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// `public`, also for the older spelling `publicURL`.
fn interface(raw: Option<String>) -> String {
    let interface = text(raw).map_or_else(|| "public".to_owned(), |text| text.to_ascii_lowercase());
    interface
        .strip_suffix("url")
        .map(str::to_owned)
        .unwrap_or(interface)
}

/// Only a plain no disables the check of certificates; some files have a path here.
fn accept_any(verify: Option<String>) -> bool {
    let verify = text(verify).unwrap_or_default().to_ascii_lowercase();
    matches!(verify.as_str(), "false" | "no" | "off" | "0")
}
