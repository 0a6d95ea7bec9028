//! The switch with which tests make minutes of the operator pass in seconds. Release builds have no
//! such switch.

use image_export_cloud::CloudOptions;
use image_export_core::Config;

/// Multiplies all times by the factor in `IMAGE_EXPORT_TIME_SCALE`, where it is set.
#[cfg(debug_assertions)]
pub(super) fn apply(config: &mut Config, options: &mut CloudOptions) -> anyhow::Result<()> {
    use anyhow::Context;
    const VARIABLE: &str = "IMAGE_EXPORT_TIME_SCALE";
    let text = std::env::var(VARIABLE).unwrap_or_default();
    if text.is_empty() {
        return Ok(());
    }
    let factor: f64 = text.parse().with_context(|| format!("{VARIABLE}={text}"))?;
    anyhow::ensure!(
        (0.001..=1000.0).contains(&factor),
        "{VARIABLE}={text}: not from 0.001 to 1000"
    );
    *config = config.clone().scaled(factor);
    options.pacing = options.pacing.as_ref().clone().scaled(factor).into();
    tracing::warn!(factor, "{VARIABLE} multiplies all times");
    Ok(())
}

/// Does nothing: release builds run in real time only.
#[cfg(not(debug_assertions))]
#[expect(clippy::unnecessary_wraps, reason = "debug builds may fail")]
pub(super) fn apply(_: &mut Config, _: &mut CloudOptions) -> anyhow::Result<()> {
    Ok(())
}
