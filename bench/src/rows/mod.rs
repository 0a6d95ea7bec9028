//! The rows: what is measured. Each measures its subjects in pairs.

mod adaptive;
mod first_status;
mod lag;
mod memory;
mod polls;
mod quota;
mod restart;
mod saturation;
mod writes;

use crate::bench::Bench;

/// The names of all rows, in the order of the tables.
pub const ALL: [&str; 10] = [
    "polls",
    "memory",
    "first-status",
    "restart",
    "writes",
    "lag",
    "adaptive",
    "storm",
    "quota",
    "saturation",
];

pub async fn run(row: &str, bench: &mut Bench) -> anyhow::Result<()> {
    match row {
        "polls" => polls::run(bench).await,
        "memory" => memory::run(bench).await,
        "first-status" => first_status::run(bench).await,
        "restart" => restart::run(bench).await,
        "writes" => writes::run(bench).await,
        "lag" => lag::calm(bench).await,
        "adaptive" => adaptive::run(bench).await,
        "storm" => lag::storm(bench).await,
        "quota" => quota::run(bench).await,
        "saturation" => saturation::run(bench).await,
        _ => anyhow::bail!("no row is called {row}, but {}", ALL.join(", ")),
    }
}
