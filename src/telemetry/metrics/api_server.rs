//! The connection to the API server: its calls, under the name that client-go gives them, and its watches.

use image_export_core::Source;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

type Text = Cow<'static, str>;
pub(super) type Calls = Family<[(&'static str, Text); 3], Counter>;

/// What the operator sends.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Codes that are counted from the start.
const CODES: [&str; 9] = [
    "200", "401", "403", "404", "409", "429", "500", "503", NO_ANSWER,
];
/// The code of a call without an answer, as in client-go.
const NO_ANSWER: &str = "<error>";

/// Counts the calls to one API server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiCalls {
    calls: Calls,
    host: Arc<str>,
}

impl ApiCalls {
    pub(super) fn register(registry: &mut Registry) -> Calls {
        super::register::add(
            registry,
            "rest_client_requests",
            "Calls to the API server, by status code, method and host; <error> where there was no answer",
        )
    }

    /// All that an operator usually meets is counted from the start.
    pub(super) fn new(calls: Calls, host: &str) -> Self {
        let calls = Self {
            calls,
            host: host.into(),
        };
        for method in METHODS {
            let created = (method == "POST").then_some("201");
            for code in CODES.into_iter().chain(created) {
                calls.add(method.into(), code.into(), 0);
            }
        }
        calls
    }

    /// A call was answered with this status, or not at all.
    pub fn count(&self, method: &http::Method, status: Option<u16>) {
        let code = status.map_or(NO_ANSWER.into(), |status| status.to_string().into());
        self.add(method.to_string().into(), code, 1);
    }

    fn add(&self, method: Text, code: Text, count: u64) {
        let host = self.host.to_string().into();
        let labels = [("code", code), ("method", method), ("host", host)];
        self.calls.get_or_create(&labels).inc_by(count);
    }
}

/// When the API server last sent something on each watch, read with each scrape.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<BTreeMap<Source, Instant>>);

impl Watches {
    pub(super) fn seen(&self, source: Source) {
        self.times().insert(source, Instant::now());
    }

    fn times(&self) -> MutexGuard<'_, BTreeMap<Source, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let oldest = self.times().values().min().copied();
        let age = oldest.map(|time| time.elapsed().as_secs_f64());
        let gauge = ConstGauge::new(age.unwrap_or_default());
        let help = "Longest time, over the watches, since the API server last sent anything on one or answered its \
                    list; it stays below a minute while all is well.";
        let unit = Some(&Unit::Seconds);
        let type_ = gauge.metric_type();
        gauge.encode(encoder.encode_descriptor("watch_age", help, unit, type_)?)
    }
}
