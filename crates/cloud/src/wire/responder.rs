//! Which server answers in place of the image service: each has a body of its own.

use http::header::{HeaderMap, SERVER};

/// By its codes, `APIGW.` or `APIG.`.
pub(super) const API_GATEWAY: &str = "the API gateway";
/// By the `title` of its errors.
pub(super) const OPENSTACK: &str = "an OpenStack service such as the identity service";
const ENVOY: &str = "Envoy, a proxy or ingress gateway";
const HAPROXY: &str = "HAProxy, a load balancer";
const KONG: &str = "Kong, an API gateway";
const NGINX: &str = "nginx, a proxy or ingress controller";

/// What only the body of this server holds, in lower case.
const BODIES: [(&str, &str); 9] = [
    ("no route matched with those values", KONG),
    ("\"404 route not found\"", "APISIX, an API gateway"),
    ("\"api not found\"", "an API gateway"),
    (
        "default backend - 404",
        "the default backend of an ingress controller",
    ),
    (
        "404 page not found",
        "Traefik or another server that is written in Go",
    ),
    ("<center>nginx", NGINX),
    ("<center>openresty", "OpenResty, a proxy or API gateway"),
    ("<html><body><h1>404 not found</h1>", HAPROXY),
    ("<code>nosuch", "an object storage service"),
];

/// What a header `Server` holds, in lower case.
const SERVERS: [(&str, &str); 5] = [
    ("envoy", ENVOY),
    ("haproxy", HAPROXY),
    ("kong", KONG),
    ("nginx", NGINX),
    ("elb", "a load balancer"),
];

/// Pages of errors are shorter, in bytes.
const LONGEST_PAGE: usize = 16 * 1024;

/// The server that the start of an error's body shows.
pub(crate) fn by_body(body: &[u8]) -> Option<&'static str> {
    let start = &body[..body.len().min(LONGEST_PAGE)];
    find(&BODIES, &String::from_utf8_lossy(start))
}

/// The server that the header `Server` of a 404 without a body shows. Of one with a body it shows nothing, as a
/// proxy sets it in what it forwards, too.
pub(crate) fn by_header(headers: &HeaderMap) -> Option<&'static str> {
    find(&SERVERS, headers.get(SERVER)?.to_str().ok()?)
}

fn find(markers: &[(&str, &'static str)], text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let mut found = markers.iter().filter(|(marker, _)| text.contains(marker));
    found.next().map(|(_, server)| *server)
}
