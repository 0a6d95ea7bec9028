//! The operator: see [`image_export_operator::cli`].

fn main() -> anyhow::Result<std::process::ExitCode> {
    image_export_operator::cli::main(std::env::args_os())
}
