//! One entry of a `clouds.yaml`: raw values in, a checked [`CloudEntry`] out. How requests are
//! authorised is parsed in [`super::login`].

use super::{
    Auth, CloudsFile, Endpoint, EndpointPolicy, JobPath, Place, ProjectRef,
    clouds_yaml::{self, RawCloud},
    parser::{Endpoints, Parser, text},
};
use crate::{http::Trust, outcome::configuration_error, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use reqwest::Certificate;

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
    pub(crate) project: Option<ProjectRef>,
    pub(crate) region: Option<String>,
    /// Catalog interface: `public`, `internal` or `admin`.
    pub(crate) interface: String,
    /// `image_endpoint_override`.
    pub(crate) image_endpoint: Option<Endpoint>,
    /// Where the entry differs from the client's own setting.
    pub(crate) job_path: Option<JobPath>,
    pub(crate) trust: Trust,
    /// A path, or the certificates themselves in PEM.
    cacert: Option<String>,
    /// Knows the entry's own secrets.
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
        let parser = Parser {
            cloud: &clouds_yaml::shown(cloud),
            place: file.place,
            policy,
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
            Some(ProjectRef::Id(id)) => Some(id),
            Some(ProjectRef::Name { .. }) | None => None,
        }
    }

    /// The file of certificates that the entry names.
    pub(crate) fn cacert_path(&self) -> Option<&str> {
        self.cacert.as_deref().filter(|text| !text.contains(PEM))
    }
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
                name.parse().map_err(|known| {
                    self.invalid(&format!("{} is {known}", self.field("image_job_path")))
                })
            })
            .transpose()?;
        let region = text(raw.region_name.take());
        let endpoints = Endpoints {
            image: text(raw.image_endpoint_override.take())
                .map(|url| self.image_endpoint(&url))
                .transpose()?,
            auth_url: text(raw_auth.auth_url.take())
                .map(|url| self.auth_url(&url, region.as_deref()))
                .transpose()?,
            region,
        };
        let (auth, project) = self.auth(&mut raw, &mut raw_auth, &endpoints)?;
        let own_cacert = text(raw.cacert);
        Ok(CloudEntry {
            trust: self.trust(own_cacert.as_deref(), cacert, verify(raw.verify))?,
            place: self.place.clone(),
            cloud: self.cloud.to_owned(),
            redactor: Redactor::new(auth.secrets()),
            auth,
            project,
            region: endpoints.region,
            interface: interface(raw.interface),
            image_endpoint: endpoints.image,
            job_path,
            cacert: own_cacert,
        })
    }

    fn image_endpoint(&self, url: &str) -> Result<Endpoint, ConfigurationError> {
        Endpoint::image(url, None, self.policy).map_err(|invalid| {
            invalid.into_error(&self.field("image_endpoint_override"), self.place)
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
        Endpoint::keystone(&url, self.policy)
            .map_err(|invalid| invalid.into_error(&self.field("auth.auth_url"), self.place))
    }

    /// `given` certificates go before those in the entry. A path in the entry is skipped: whoever can
    /// read it gives its content.
    fn trust(
        &self,
        in_entry: Option<&str>,
        given: Option<&[u8]>,
        verify: bool,
    ) -> Result<Trust, ConfigurationError> {
        let in_entry = in_entry
            .filter(|text| text.contains(PEM))
            .map(str::as_bytes);
        let authorities = match given.or(in_entry) {
            None => Vec::new(),
            Some(pem) => Certificate::from_pem_bundle(pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| {
                    configuration_error(
                        ConfigurationReason::CredentialsInvalid,
                        format!(
                            "{} is not a list of certificates in PEM",
                            self.place.cacert()
                        ),
                    )
                })?,
        };
        Ok(Trust {
            authorities,
            verify,
        })
    }
}

/// `public`, also for the older spelling `publicURL`.
fn interface(raw: Option<String>) -> String {
    let interface = text(raw).map_or_else(|| "public".to_owned(), |text| text.to_ascii_lowercase());
    interface
        .strip_suffix("url")
        .map(str::to_owned)
        .unwrap_or(interface)
}

/// Only a plain no disables the check; some files have a path here.
fn verify(raw: Option<String>) -> bool {
    let raw = text(raw).unwrap_or_default().to_ascii_lowercase();
    !matches!(raw.as_str(), "false" | "no" | "off" | "0")
}
