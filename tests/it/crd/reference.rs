//! The API reference `docs/api.md` is generated from the CRD.

#[path = "../../../examples/api-reference/render.rs"]
mod render;

use super::{schemas, text};
use image_export_api::crd;

#[test]
fn the_api_reference_is_generated_from_the_crd() {
    let page = include_str!("../../../docs/api.md");
    assert!(
        page == render::markdown(&crd::json()),
        "the CRD has changed: cargo run --example api-reference > docs/api.md"
    );
}

#[test]
fn it_describes_each_field() {
    let crd = crd::json();
    let page = render::markdown(&crd);
    for (path, schema) in schemas(&crd) {
        let description = text(&schema["description"]);
        assert!(page.contains(description), "{path}: {description}");
        let name = path.rsplit(['.', ']']).next().unwrap_or_default();
        assert!(page.contains(name), "{path}");
    }
}
