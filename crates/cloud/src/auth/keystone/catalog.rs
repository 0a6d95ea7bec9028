//! Where the image service is, by the catalog in the answer to a login.

use super::{
    Keystone,
    token::{RegionEndpoint, Token},
};
use crate::{config::Endpoint, outcome::misconfigured, wire::text::Redactor};
use image_export_model::{ConfigurationReason, Outcome};
use std::collections::BTreeSet;

/// How many regions a message names.
const MAX_NAMED_REGIONS: usize = 5;

impl Keystone<'_> {
    /// The catalog's image service of the entry's interface and region. The region is the entry's
    /// `region_name`, else the start of the project's name (`eu-de_team`), else the only one there is.
    /// `redactor` knows the token that was just granted.
    pub(super) fn image_endpoint(
        self,
        token: &Token,
        project_id: &str,
        redactor: &Redactor,
    ) -> Result<Endpoint, Outcome> {
        let entry = self.entry;
        let of_project = token.project_name.as_deref();
        let of_project = of_project.and_then(|name| name.split('_').next());
        let endpoints = &token.endpoints;
        if endpoints.is_empty() {
            let region = entry.region.as_deref().or(of_project).unwrap_or_default();
            return self.endpoint_without_catalog(region);
        }

        let in_region = |wanted: &str| endpoints.iter().find(|endpoint| endpoint.region == wanted);
        let only_one = || {
            let urls: BTreeSet<_> = endpoints.iter().map(|endpoint| &endpoint.url).collect();
            (urls.len() == 1).then(|| &endpoints[0])
        };
        let found = match &entry.region {
            Some(region) => in_region(region),
            None => of_project.and_then(in_region).or_else(only_one),
        };
        let found = found.ok_or_else(|| self.not_in_region(endpoints, redactor))?;
        Endpoint::image(&found.url, Some(project_id), &self.http.options.policy).map_err(
            |invalid| {
                let field = "the catalog's URL of the image service";
                Outcome::Misconfigured(invalid.into_error(field, &entry.described(), redactor))
            },
        )
    }

    fn endpoint_without_catalog(self, region: &str) -> Result<Endpoint, Outcome> {
        let sibling = Endpoint::image_service(
            Some(&self.login.auth_url),
            region,
            &self.http.options.policy,
        );
        sibling.and_then(Result::ok).ok_or_else(|| {
            misconfigured(
                ConfigurationReason::EndpointInvalid,
                format!(
                    "the catalog of {} has no image service with the wanted interface; correct interface, or set image_endpoint_override",
                    self.entry.described()
                ),
            )
        })
    }

    fn not_in_region(self, endpoints: &[RegionEndpoint], redactor: &Redactor) -> Outcome {
        let regions: BTreeSet<_> = endpoints.iter().map(|endpoint| &*endpoint.region).collect();
        let regions: Vec<_> = regions
            .into_iter()
            .filter_map(|region| redactor.clean_chars(region, 64))
            .take(MAX_NAMED_REGIONS)
            .collect();
        misconfigured(
            ConfigurationReason::EndpointInvalid,
            format!(
                "the image service of {} is not in the wanted region; set region_name to one of: {}",
                self.entry.described(),
                regions.join(", ")
            ),
        )
    }
}
