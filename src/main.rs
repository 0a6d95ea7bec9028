//! stub
fn main() {
    print!("{}", image_export_operator::api::crd::yaml());
}
