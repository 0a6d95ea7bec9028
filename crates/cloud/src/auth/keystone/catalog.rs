//! Where the image service is, by the catalog in the answer to a login.

use super::Keystone;
use crate::{
    config::Endpoint,
    outcome::misconfigured,
    wire::{json::items, text::Redactor},
};
use image_export_model::{ConfigurationReason, Outcome};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many regions a message names.
const MAX_NAMED_REGIONS: usize = 5;

impl Keystone<'_> {
    /// The catalog's image service of the entry's interface and region. The region is the entry's
    /// `region_name`, else the start of the project's name (`eu-de_team`), else the only one there is.
    /// `redactor` knows the token that was just granted.
    pub(super) fn image_endpoint(
        self,
        token: &Value,
        project_id: &str,
        redactor: &Redactor,
    ) -> Result<Endpoint, Outcome> {
        let entry = self.entry;
        let of_project = token["project"]["name"]
            .as_str()
            .and_then(|name| name.split('_').next());
        let endpoints = image_endpoints(&token["catalog"], &entry.interface);
        if endpoints.is_empty() {
            let region = entry.region.as_deref().or(of_project).unwrap_or_default();
            return self.endpoint_without_catalog(region);
        }

        let in_region = |wanted: &str| endpoints.iter().find(|(region, _)| *region == wanted);
        let only_one = || {
            let urls: BTreeSet<_> = endpoints.iter().map(|(_, url)| url).collect();
            (urls.len() == 1).then(|| &endpoints[0])
        };
        let found = match &entry.region {
            Some(region) => in_region(region),
            None => of_project.and_then(in_region).or_else(only_one),
        };
        let (_, url) = found.ok_or_else(|| self.not_in_region(&endpoints, redactor))?;
        Endpoint::image(url, Some(project_id), &self.http.options.policy).map_err(|invalid| {
            let field = "the catalog's URL of the image service";
            Outcome::Misconfigured(invalid.into_error(field, &entry.described(), redactor))
        })
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

    fn not_in_region(self, endpoints: &[(&str, &str)], redactor: &Redactor) -> Outcome {
        let regions: BTreeSet<_> = endpoints.iter().map(|(region, _)| *region).collect();
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

/// Region and URL of each image service with this interface.
fn image_endpoints<'a>(catalog: &'a Value, interface: &str) -> Vec<(&'a str, &'a str)> {
    items(catalog)
        .iter()
        .filter(|service| service["type"] == "image")
        .flat_map(|service| items(&service["endpoints"]))
        .filter(|endpoint| endpoint["interface"] == interface)
        .filter_map(|endpoint| {
            let region = endpoint["region"]
                .as_str()
                .or_else(|| endpoint["region_id"].as_str());
            Some((region.unwrap_or_default(), endpoint["url"].as_str()?))
        })
        .collect()
}
