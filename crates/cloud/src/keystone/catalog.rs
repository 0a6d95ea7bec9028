//! Where the image service is, by the catalog in the answer to a login.

use super::{
    super::{endpoint::Endpoint, text::Redactor},
    Login, LoginProblem,
};
use image_export_model::ConfigurationReason;
use serde_json::Value;
use std::collections::BTreeSet;

/// How many regions a message names.
const MAX_NAMED_REGIONS: usize = 5;

impl Login<'_> {
    /// The catalog's image service of the wanted interface and region: the entry's `region_name`, else
    /// the start of the project's name (`eu-de_team`), else the only one there is.
    pub(super) fn image_endpoint(
        &self,
        token: &Value,
        project_id: &str,
    ) -> Result<Endpoint, LoginProblem> {
        let entry = self.credential.entry();
        let policy = &self.http.options().policy;
        let invalid =
            |message| LoginProblem::refused(ConfigurationReason::EndpointInvalid, message);
        let described = self.credential.described();
        let of_project = token["project"]["name"]
            .as_str()
            .and_then(|name| name.split('_').next());

        let endpoints: Vec<(&str, &str)> = items(&token["catalog"])
            .filter(|service| service["type"] == "image")
            .flat_map(|service| items(&service["endpoints"]))
            .filter(|endpoint| endpoint["interface"].as_str() == Some(entry.interface.as_str()))
            .filter_map(|endpoint| {
                let region = endpoint["region"]
                    .as_str()
                    .or_else(|| endpoint["region_id"].as_str());
                Some((region.unwrap_or_default(), endpoint["url"].as_str()?))
            })
            .collect();
        if endpoints.is_empty() {
            let region = entry.region.as_deref().or(of_project).unwrap_or_default();
            return match self.auth_url.sibling_image_service(region, policy) {
                Some(Ok(endpoint)) => Ok(endpoint),
                Some(Err(_)) | None => Err(invalid(format!(
                    "the catalog of {described} has no image service with the wanted interface; correct interface, or set image_endpoint_override"
                ))),
            };
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
        let (_, url) = found.ok_or_else(|| {
            let regions: BTreeSet<_> = endpoints.iter().map(|(region, _)| *region).collect();
            let regions: Vec<_> = regions
                .into_iter()
                .filter_map(|region| Redactor::default().clean_chars(region, 64))
                .take(MAX_NAMED_REGIONS)
                .collect();
            invalid(format!(
                "the image service of {described} is not in the wanted region; set region_name to one of: {}",
                regions.join(", ")
            ))
        })?;
        Endpoint::image(url, Some(project_id), policy).map_err(|bad| {
            LoginProblem::Refused(bad.refusal("the catalog's URL of the image service", &described))
        })
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}
