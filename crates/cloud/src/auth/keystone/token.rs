//! The body of an accepted login, read as far as it is used: a catalog lists all services of all regions.

use crate::wire::{
    json::{self, Members, Object, Objects, Scalar, Value},
    timestamp,
};
use jiff::Timestamp;
use serde::de::MapAccess;

/// Longest id, name or region that is read, in bytes. A longer one counts as absent.
const MAX_NAME_BYTES: usize = 256;
/// Longest URL of a catalog that is read, in bytes. An endpoint with a longer one counts as absent.
const MAX_URL_BYTES: usize = 1024;
/// As many endpoints of the image service are read.
const MAX_ENDPOINTS: usize = 256;

/// What a login granted. Ids, names and times are `None` where they are absent, or no texts.
#[derive(Debug, Default)]
pub(super) struct Token {
    pub(super) project_id: Option<String>,
    pub(super) project_name: Option<String>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    /// Of the image service, with the wanted interface.
    pub(super) endpoints: Vec<RegionEndpoint>,
}

/// An endpoint of a catalog.
#[derive(Debug)]
pub(super) struct RegionEndpoint {
    /// Blank where the catalog names none.
    pub(super) region: String,
    pub(super) url: String,
}

impl Token {
    /// `None` if `body` is no JSON. Of its catalog the image service with this `interface` is read.
    pub(super) fn parse(body: &[u8], interface: &str) -> Option<Self> {
        let mut body_members = Body {
            interface,
            token: TokenMembers::new(interface),
        };
        json::parse(body, Object(&mut body_members))?;
        Some(body_members.token.token)
    }
}

struct Body<'a> {
    interface: &'a str,
    token: TokenMembers<'a>,
}

impl<'de> Members<'de> for Body<'_> {
    const NAMES: &'static [&'static str] = &["token"];

    fn read<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        self.token = TokenMembers::new(self.interface);
        value.read(Object(&mut self.token))?;
        Ok(())
    }
}

struct TokenMembers<'a> {
    interface: &'a str,
    token: Token,
}

impl<'a> TokenMembers<'a> {
    fn new(interface: &'a str) -> Self {
        Self {
            interface,
            token: Token::default(),
        }
    }
}

impl<'de> Members<'de> for TokenMembers<'_> {
    const NAMES: &'static [&'static str] = &["project", "issued_at", "expires_at", "catalog"];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let (token, interface) = (&mut self.token, self.interface);
        let time = |at: Scalar<'_>| timestamp::parse(at.as_str()?);
        match name {
            "project" => {
                let mut project = Project::default();
                value.read(Object(&mut project))?;
                (token.project_id, token.project_name) = (project.id, project.name);
            }
            "issued_at" => token.issued_at = value.by(time)?,
            "expires_at" => token.expires_at = value.by(time)?,
            _ => {
                token.endpoints.clear();
                value.read(Objects {
                    new: || Service::new(interface),
                    each: |service| token.add(service),
                })?;
            }
        }
        Ok(())
    }
}

impl Token {
    fn add(&mut self, service: Service<'_>) {
        let left = MAX_ENDPOINTS.saturating_sub(self.endpoints.len());
        if service.is_image {
            self.endpoints
                .extend(service.endpoints.into_iter().take(left));
        }
    }
}

#[derive(Default)]
struct Project {
    id: Option<String>,
    name: Option<String>,
}

impl<'de> Members<'de> for Project {
    const NAMES: &'static [&'static str] = &["id", "name"];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let text = value.by(|text| bounded(text, MAX_NAME_BYTES))?;
        match name {
            "id" => self.id = text,
            _ => self.name = text,
        }
        Ok(())
    }
}

/// A service of a catalog, whose type may stand behind its endpoints.
struct Service<'a> {
    interface: &'a str,
    is_image: bool,
    endpoints: Vec<RegionEndpoint>,
}

impl<'a> Service<'a> {
    fn new(interface: &'a str) -> Self {
        Self {
            interface,
            is_image: false,
            endpoints: Vec::new(),
        }
    }
}

impl<'de> Members<'de> for Service<'_> {
    const NAMES: &'static [&'static str] = &["type", "endpoints"];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        if name == "type" {
            self.is_image = value.by(|of| of.as_str() == Some("image"))?;
            return Ok(());
        }
        let (endpoints, interface) = (&mut self.endpoints, self.interface);
        endpoints.clear();
        value.read(Objects {
            new: || EndpointMembers::new(interface),
            each: |endpoint: EndpointMembers<'_>| {
                if endpoints.len() < MAX_ENDPOINTS {
                    endpoints.extend(endpoint.wanted());
                }
            },
        })
    }
}

struct EndpointMembers<'a> {
    interface: &'a str,
    is_wanted: bool,
    region: Option<String>,
    region_id: Option<String>,
    url: Option<String>,
}

impl<'a> EndpointMembers<'a> {
    fn new(interface: &'a str) -> Self {
        Self {
            interface,
            is_wanted: false,
            region: None,
            region_id: None,
            url: None,
        }
    }

    fn wanted(self) -> Option<RegionEndpoint> {
        let region = self.region.or(self.region_id).unwrap_or_default();
        let url = self.url.filter(|_| self.is_wanted)?;
        Some(RegionEndpoint { region, url })
    }
}

impl<'de> Members<'de> for EndpointMembers<'_> {
    const NAMES: &'static [&'static str] = &["interface", "region", "region_id", "url"];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "interface" => {
                let interface = self.interface;
                self.is_wanted = value.by(|of| of.as_str() == Some(interface))?;
            }
            "region" => self.region = value.by(|text| bounded(text, MAX_NAME_BYTES))?,
            "region_id" => self.region_id = value.by(|text| bounded(text, MAX_NAME_BYTES))?,
            _ => self.url = value.by(|text| bounded(text, MAX_URL_BYTES))?,
        }
        Ok(())
    }
}

fn bounded(text: Scalar<'_>, max_bytes: usize) -> Option<String> {
    let text = text.as_str().filter(|text| text.len() <= max_bytes);
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_image_service_with_the_wanted_interface_is_read() {
        let body = json!({"token": {
            "methods": ["password"], "roles": [{"id": "1"}],
            "project": {"id": "p1", "name": "eu-de_x", "domain": {"id": "d1"}},
            "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": 5,
            "catalog": [
                {"type": "compute", "endpoints": [{"interface": "public", "region": "a", "url": "u1"}]},
                {"endpoints": [
                    {"interface": "public", "region": "a", "url": "u2"},
                    {"url": "u3", "interface": "public", "region": null, "region_id": "b"},
                    {"interface": "public", "url": "u4"},
                    {"interface": "internal", "region": "c", "url": "u5"},
                    {"interface": "public", "region": "d"},
                    {"interface": "public", "region": "e", "url": "u".repeat(MAX_URL_BYTES + 1)},
                    7, null, [],
                ], "type": "image"},
                {"type": "image", "endpoints": {"interface": "public", "url": "u6"}},
                {"type": ["image"], "endpoints": [{"interface": "public", "url": "u7"}]},
                "image",
            ],
        }});
        let token = Token::parse(body.to_string().as_bytes(), "public").unwrap();
        let endpoints = token.endpoints.iter();
        let endpoints: Vec<_> = endpoints.map(|at| (&*at.region, &*at.url)).collect();
        assert_eq!(endpoints, [("a", "u2"), ("b", "u3"), ("", "u4")]);
        let named = (token.project_id.as_deref(), token.project_name.as_deref());
        assert_eq!(named, (Some("p1"), Some("eu-de_x")));
        assert!(token.issued_at.is_some() && token.expires_at.is_none());
    }

    #[test]
    fn what_is_absent_or_of_another_type_is_none_and_the_last_of_equal_keys_counts() {
        for body in [
            "{}",
            "[]",
            "7",
            r#"{"token":[]}"#,
            r#"{"token":{"project":"p"}}"#,
        ] {
            let token = Token::parse(body.as_bytes(), "public").unwrap();
            assert!(
                token.project_id.is_none() && token.endpoints.is_empty(),
                "{body}"
            );
        }
        for body in ["", "<html>", "{\"token\":", "{} {}"] {
            assert!(Token::parse(body.as_bytes(), "public").is_none(), "{body}");
        }
        let twice = br#"{"token":{"project":{"id":"a"}},"token":{"project":{"id":"b","id":"c"}}}"#;
        let token = Token::parse(twice, "public").unwrap();
        assert_eq!(token.project_id.as_deref(), Some("c"));
    }

    #[test]
    fn no_answer_unfolds_when_it_is_read() {
        const LENGTH: usize = 256 * 1024;
        let filled = |start: &str, item: &str, end: &str| {
            let items = (LENGTH - start.len() - end.len()) / item.len();
            format!("{start}{}{end}", item.repeat(items))
        };
        let catalog = r#"{"token":{"catalog":["#;
        let image = r#"{"token":{"catalog":[{"type":"image","endpoints":["#;
        let endpoint = r#"{"url":"u","interface":"public"},"#;
        let url = format!(r#"{{"url":"{}","interface":"public"}},"#, "u".repeat(1000));
        for body in [
            filled(r#"{"token":{"#, r#""":0,"#, r#""x":0}}"#),
            filled(catalog, "{},", "0]}}"),
            filled(catalog, r#"{"endpoints":[{}]},"#, "0]}}"),
            filled(image, "{},", "0]}]}}"),
            filled(image, endpoint, "0]}]}}"),
            filled(image, &url, "0]}]}}"),
        ] {
            let info = allocation_counter::measure(|| {
                assert!(
                    Token::parse(body.as_bytes(), "public").is_some(),
                    "{body:.60}"
                );
            });
            println!("{body:.60}…: {} bytes at most", info.bytes_max);
            assert!(info.bytes_max <= 2 * LENGTH as u64, "{body:.60}: {info:?}");
        }
    }

    #[test]
    fn of_a_catalog_without_end_a_part_is_kept() {
        let endpoint = json!({"interface": "public", "url": "u"});
        let service = json!({"type": "image", "endpoints": vec![endpoint; MAX_ENDPOINTS]});
        let body = json!({"token": {"catalog": vec![service; 3]}}).to_string();
        let token = Token::parse(body.as_bytes(), "public").unwrap();
        assert_eq!(token.endpoints.len(), MAX_ENDPOINTS);
    }
}
