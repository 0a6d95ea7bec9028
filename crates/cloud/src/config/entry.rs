//! One entry of a `clouds.yaml`: raw values in, a checked [`CloudEntry`] out. How requests are
//! authorised is parsed in [`super::login`].

use super::{
    Auth, CloudsFile, Endpoint, EndpointPolicy, EntityRef, JobPath, MAX_CACERT_BYTES,
    MAX_ENTRY_BYTES, Place,
    clouds_yaml::{self, RawCloud, TaggedValue},
    endpoint::InvalidUrl,
    fields::Field,
    login::trimmed,
};
use crate::{http::Trust, outcome::configuration_error, secret::Secret, wire::text::Redactor};
use image_export_model::{ConfigurationError, ConfigurationReason};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::ExposeSecret;

const NOT_PEM: &str = "is not a list of certificates in PEM, each between lines -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----";
/// Distinguishes certificates from the path of their file.
const PEM: &str = "-----BEGIN";
/// OTC's own examples write `https://iam.{region_name}.otc.t-systems.com/v3`.
const PLACEHOLDER: &str = "{region_name}";

/// What keystoneauth replaces at the end of a URL by the project, which is not part of an endpoint here.
const PROJECT_PLACEHOLDERS: [&str; 4] = [
    "/%(project_id)s",
    "/$(project_id)s",
    "/%(tenant_id)s",
    "/$(tenant_id)s",
];
/// How cipher text of Ansible Vault and SOPS begins.
const CIPHERS: [&str; 2] = ["$ANSIBLE_VAULT;", "ENC[AES256_GCM,"];

/// The profiles of openstacksdk for Open Telekom Cloud, with their `auth_url` and their regions.
const PROFILES: [(&str, &str, &[&str]); 2] = [
    (
        "otc",
        "https://iam.{region_name}.otc.t-systems.com/v3",
        &["eu-de", "eu-nl"],
    ),
    (
        "otc-swiss",
        "https://iam-pub.eu-ch2.sc.otc.t-systems.com/v3",
        &["eu-ch2"],
    ),
];

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
    /// Its keys that have no meaning here, as messages show them.
    pub(crate) ignored: Vec<String>,
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
        let redactor = raw.redactor();
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

    /// The bytes of all texts and certificates that it holds. A secret counts once, whoever shares it.
    pub(crate) fn bytes(&self) -> usize {
        let known: Vec<&Secret> = self.redactor.secrets().collect();
        let others = self.auth.secrets();
        let others = others.filter(|other| !known.iter().any(|secret| secret.is_same(other)));
        let secrets = known.iter().copied().chain(others);
        let secrets: usize = secrets.map(|secret| secret.expose_secret().len()).sum();
        let place = match &self.place {
            Place::KeyOf(text) | Place::File(text) => text.len(),
        };
        let texts = [&self.region, &self.cacert_path].into_iter().flatten();
        let texts = texts.chain(&self.ignored).map(String::len).sum::<usize>();
        place
            + self.cloud.len()
            + self.auth.bytes()
            + self.project.as_ref().map_or(0, EntityRef::bytes)
            + self.interface.len()
            + self.image_endpoint.as_ref().map_or(0, Endpoint::bytes)
            + self.trust.bytes()
            + secrets
            + texts
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
    /// That of the image service.
    pub(super) region: Option<String>,
    pub(super) image: Option<Endpoint>,
}

impl Parser<'_> {
    fn entry(
        &self,
        mut raw: RawCloud,
        cacert: Option<&[u8]>,
    ) -> Result<CloudEntry, ConfigurationError> {
        let mut ignored = raw.ignored(self.redactor);
        if let Some(tagged) = raw.tagged() {
            return Err(self.tagged(tagged));
        }
        if let Some((field, bytes)) = raw.too_long() {
            let problem = format!(
                "has {bytes} bytes, and at most {} are read",
                field.max_bytes()
            );
            return Err(self.wrong(field, &problem));
        }
        if let Some(bytes) = raw.too_many_bytes() {
            return Err(self.invalid(&format!(
                "the texts of clouds.{} have {bytes} bytes together, and at most {MAX_ENTRY_BYTES} are read",
                self.cloud
            )));
        }
        if let Some(field) = raw.find_secret(|secret| CIPHERS.iter().any(|c| secret.starts_with(c)))
        {
            let problem = "is cipher text; write the value itself";
            return Err(self.wrong(field, problem));
        }
        let job_path = raw
            .text(Field::ImageJobPath)
            .map(|name| {
                let parsed = name.parse();
                parsed.map_err(|known| self.wrong(Field::ImageJobPath, &format!("is {known}")))
            })
            .transpose()?;
        let profile = raw.text(Field::Profile);
        let profile = PROFILES
            .iter()
            .find(|(name, ..)| profile.as_deref() == Some(name));
        let of_project = raw.region_of_project();
        let of_profile = profile.map(|(.., regions)| {
            let of_project = regions.iter().find(|r| of_project.as_deref() == Some(r));
            (*of_project.unwrap_or(&regions[0])).to_owned()
        });
        let region = raw.text(Field::RegionName).or(of_profile);
        let auth_url = raw.text(Field::AuthUrl);
        let auth_url = auth_url.or_else(|| profile.map(|(_, url, _)| (*url).to_owned()));
        let region_in_urls = region.as_deref().or(of_project.as_deref());
        let endpoint = |field, url: &str, parse: &dyn Fn(&str) -> Result<Endpoint, InvalidUrl>| {
            let url = match region_in_urls {
                Some(region) => url.replace(PLACEHOLDER, region),
                None if url.contains(PLACEHOLDER) => return Err(self.missing(Field::RegionName)),
                None => url.to_owned(),
            };
            let url = PROJECT_PLACEHOLDERS
                .iter()
                .find_map(|project| url.strip_suffix(project))
                .unwrap_or(&url);
            if url.contains(['{', '}']) || url.contains("%(") || url.contains("$(") {
                let problem = "holds a placeholder; only {region_name} is replaced";
                return Err(self.wrong(field, problem));
            }
            self.endpoint(field, parse(url))
        };
        let image = |url: &str| Endpoint::image(url, None, self.policy);
        let keystone = |url: &str| Endpoint::keystone(url, self.policy);
        let endpoints = Endpoints {
            image: raw
                .text(Field::ImageEndpoint)
                .map(|url| endpoint(Field::ImageEndpoint, &url, &image))
                .transpose()?,
            auth_url: auth_url
                .map(|url| endpoint(Field::AuthUrl, &url, &keystone))
                .transpose()?,
            region: raw.text(Field::ImageRegionName).or_else(|| region.clone()),
        };
        let (auth, project) = self.auth(&mut raw, &endpoints)?;
        // A path is skipped: whoever can read it gives its content, which goes before what is here.
        let (pem, cacert_path) = match raw.text(Field::CaCert) {
            Some(text) if text.contains(PEM) => (Some(text), None),
            path => (None, path),
        };
        if cacert_path.is_some() && matches!(self.place, Place::KeyOf(_)) {
            ignored.push("cacert (a path)".to_owned());
        }
        // Some providers of Secrets write a blank key where there is nothing.
        let cacert = cacert.filter(|pem| !pem.trim_ascii().is_empty());
        let pem = cacert.or(pem.as_deref().map(str::as_bytes));
        let accepts_any = accepts_any(&mut raw);
        if let Some(field) = accepts_any.filter(|_| self.policy.require_verified_tls) {
            return Err(self.unverified(field));
        }
        Ok(CloudEntry {
            trust: self.trust(pem, accepts_any.is_some())?,
            place: self.place.clone(),
            cloud: self.cloud.to_owned(),
            redactor: self.redactor.clone(),
            auth,
            project,
            region: endpoints.region,
            interface: interface(raw.text(Field::Interface)),
            image_endpoint: endpoints.image,
            job_path,
            cacert_path,
            ignored,
        })
    }

    fn tagged(&self, value: &TaggedValue) -> ConfigurationError {
        let tag = clouds_yaml::shown(&value.tag, self.redactor);
        let problem = format!(
            "has the YAML tag {tag} at line {}, with which another tool would replace the value; write the value itself",
            value.line
        );
        self.wrong(value.field, &problem)
    }

    fn trust(&self, pem: Option<&[u8]>, accept_any: bool) -> Result<Trust, ConfigurationError> {
        let invalid = |problem: &str| {
            let message = format!("{} {problem}", self.place.cacert());
            configuration_error(ConfigurationReason::CredentialsInvalid, message)
        };
        let pem = pem.unwrap_or_default();
        if pem.len() > MAX_CACERT_BYTES {
            return Err(invalid(&format!(
                "has {} bytes, and at most {MAX_CACERT_BYTES} are read; name only authorities that the system does not trust",
                pem.len()
            )));
        }
        let mut authorities = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let der = certificate.map_err(|_| invalid(NOT_PEM))?;
            // The HTTP client checks none of them before it is built.
            if RootCertStore::empty().add(der.clone()).is_err() {
                let number = authorities.len() + 1;
                return Err(invalid(&format!(
                    "holds a certificate that cannot be read: number {number}"
                )));
            }
            authorities.push(der);
        }
        if !pem.is_empty() && authorities.is_empty() {
            return Err(invalid(NOT_PEM));
        }
        Ok(Trust {
            authorities: authorities.into(),
            accept_any,
        })
    }

    /// The endpoint that `field` names.
    pub(super) fn endpoint(
        &self,
        field: Field,
        endpoint: Result<Endpoint, InvalidUrl>,
    ) -> Result<Endpoint, ConfigurationError> {
        endpoint.map_err(|invalid| invalid.into_error(&self.path(field), self.place, self.redactor))
    }

    /// A token goes into a header, which cannot hold line breaks and the like.
    pub(super) fn header_safe(
        &self,
        field: Field,
        token: Secret,
    ) -> Result<Secret, ConfigurationError> {
        let token = trimmed(token);
        if token.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(token);
        }
        let problem = "is not a token: it holds spaces or other characters that no token has";
        Err(self.wrong(field, problem))
    }

    fn unverified(&self, field: Field) -> ConfigurationError {
        configuration_error(
            ConfigurationReason::EndpointNotAllowed,
            format!(
                "{} in {} accepts any certificate, which --require-verified-tls forbids; remove it, and add the authority of the server as cacert",
                self.path(field),
                self.place
            ),
        )
    }

    pub(super) fn missing(&self, field: Field) -> ConfigurationError {
        self.wrong(field, "is missing or empty")
    }

    pub(super) fn wrong(&self, field: Field, problem: &str) -> ConfigurationError {
        self.invalid(&format!("{} {problem}", self.path(field)))
    }

    fn path(&self, field: Field) -> String {
        format!("clouds.{}.{}", self.cloud, field.path())
    }

    pub(super) fn invalid(&self, problem: &str) -> ConfigurationError {
        configuration_error(
            ConfigurationReason::CredentialsInvalid,
            format!("in {}, {problem}", self.place.content()),
        )
    }
}

/// `public`, also for the older spelling `publicURL`.
fn interface(raw: Option<String>) -> String {
    let interface = raw.map_or_else(|| "public".to_owned(), |text| text.to_ascii_lowercase());
    interface
        .strip_suffix("url")
        .map(str::to_owned)
        .unwrap_or(interface)
}

/// The field that disables the check of certificates. Only a plain yes to `insecure` or no to `verify` does;
/// some files have a path in `verify`.
fn accepts_any(raw: &mut RawCloud) -> Option<Field> {
    let mut is = |field, words: [&str; 4]| {
        let value = raw.text(field).unwrap_or_default().to_ascii_lowercase();
        words.contains(&value.as_str()).then_some(field)
    };
    let insecure = is(Field::Insecure, ["true", "yes", "on", "1"]);
    is(Field::Verify, ["false", "no", "off", "0"]).or(insecure)
}
