//! The operator: see [`image_export_operator::cli`].

fn main() -> anyhow::Result<()> {
    image_export_operator::cli::main(std::env::args_os())
}
