//! The operator: see [`image_export_operator::cli`].

use dlmalloc::GlobalDlmalloc;

/// Holds less memory than glibc's allocator, and takes less time than musl's (docs/benchmark.md, "The allocator").
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> anyhow::Result<std::process::ExitCode> {
    image_export_operator::cli::main(std::env::args_os())
}
