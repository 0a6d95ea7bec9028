//! Registration: each metric with its help, and with every value of its labels from the start, so that a rate
//! sees the first event of a series.

use image_export_cloud::Operation;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use std::sync::atomic::AtomicU64;

/// `N` labels, each a name and a value.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Histograms with one label.
pub(super) type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// A gauge of seconds.
pub(super) type Seconds = Gauge<f64, AtomicU64>;

/// Registers a metric and returns it.
pub(super) fn add<M: Metric + Clone + Default>(r: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    r.register(name, help, metric.clone());
    metric
}

/// The same for one in seconds, whose `name` is without the unit.
pub(super) fn add_seconds<M: Metric + Clone>(
    r: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    r.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

/// The same for a counter with one label.
pub(super) fn add_by(
    r: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> Family<Labels<1>, Counter> {
    let family: Family<Labels<1>, Counter> = add(r, name, help);
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
    family
}

/// The same for a histogram of seconds with one label.
pub(super) fn add_seconds_by(
    r: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
    histogram: fn() -> Histogram,
) -> Histograms {
    let family = add_seconds(r, name, help, Family::new_with_constructor(histogram));
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
    family
}

/// The counter of requests to clouds.
pub(super) fn add_requests(
    r: &mut Registry,
    name: &str,
    help: &str,
    classes: &[&'static str],
) -> Family<Labels<2>, Counter> {
    let family: Family<Labels<2>, Counter> = add(r, name, help);
    for operation in [Operation::Login, Operation::JobQuery] {
        for class in classes {
            let labels = [("operation", operation.label()), ("class", *class)];
            drop(family.get_or_create(&labels));
        }
    }
    family
}

pub(super) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
