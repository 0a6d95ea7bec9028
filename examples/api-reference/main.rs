//! Prints `docs/api.md`: the API reference, made from the CRD. [`render`] makes it.
//!
//! `cargo run --example api-reference > docs/api.md`

mod render;

use image_export_api::crd;

fn main() {
    print!("{}", render::markdown(&crd::json()));
}
