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

/// The metrics of a family, all of them known from the start, by the values of their labels.
#[derive(Debug)]
pub(super) struct Series<const N: usize, M>(Vec<([&'static str; N], M)>);

impl<const N: usize, M> Series<N, M> {
    fn of(&self, values: [&'static str; N]) -> Option<&M> {
        let mut series = self.0.iter();
        let found = series.find(|(known, _)| *known == values);
        debug_assert!(found.is_some(), "{values:?}");
        found.map(|(_, metric)| metric)
    }
}

impl<const N: usize> Series<N, Counter> {
    /// Counts one more.
    pub(super) fn inc(&self, values: [&'static str; N]) {
        if let Some(counter) = self.of(values) {
            counter.inc();
        }
    }
}

impl<const N: usize> Series<N, Histogram> {
    /// Adds an observation.
    pub(super) fn observe(&self, values: [&'static str; N], value: f64) {
        if let Some(histogram) = self.of(values) {
            histogram.observe(value);
        }
    }
}

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
) -> Series<1, Counter> {
    let family: Family<Labels<1>, Counter> = add(r, name, help);
    let series = |value| ([value], family.get_or_create_owned(&[(label, value)]));
    Series(values.into_iter().map(series).collect())
}

/// The same for a histogram of seconds with one label.
pub(super) fn add_seconds_by(
    r: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
    histogram: fn() -> Histogram,
) -> Series<1, Histogram> {
    let family: Family<Labels<1>, Histogram, fn() -> Histogram> =
        Family::new_with_constructor(histogram);
    let family = add_seconds(r, name, help, family);
    let series = |value| ([value], family.get_or_create_owned(&[(label, value)]));
    Series(values.into_iter().map(series).collect())
}

/// The counter of requests to clouds.
pub(super) fn add_requests(
    r: &mut Registry,
    name: &str,
    help: &str,
    classes: &[&'static str],
) -> Series<2, Counter> {
    let family: Family<Labels<2>, Counter> = add(r, name, help);
    let operations = [Operation::Login, Operation::JobQuery].map(Operation::label);
    let values = operations
        .into_iter()
        .flat_map(|operation| classes.iter().map(move |class| [operation, *class]));
    let series = |[operation, class]: [&'static str; 2]| {
        let labels = [("operation", operation), ("class", class)];
        ([operation, class], family.get_or_create_owned(&labels))
    };
    Series(values.map(series).collect())
}

pub(super) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
