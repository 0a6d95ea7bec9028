//! Jobs: their properties, their progress, and the body that reports it.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// The key of a job: ids are unique within a project only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The `project_id` of the path.
    pub project: String,
    /// The `job_id` of the path.
    pub job: String,
}

impl JobKey {
    /// The job `job` of the project `project`.
    #[must_use]
    pub fn new(project: impl Into<String>, job: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            job: job.into(),
        }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/v1/{}/jobs/{}", self.project, self.job)
    }
}

/// The wall clock. Not `Timestamp::now`: built alone, this crate gets its time library without `std`.
pub(super) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since_epoch.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or(Timestamp::MAX)
}

/// When a job starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// When the job is given to the simulator.
    #[default]
    Creation,
    /// With the first query that no script answers.
    FirstQuery,
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `SUCCESS`, perhaps without the image id that belongs to it.
    Success,
    /// `FAIL`.
    Fail {
        /// `error_code`; null where absent.
        error_code: Option<String>,
        /// `fail_reason`; null where absent.
        fail_reason: Option<String>,
    },
    /// Not at all: it stays `RUNNING`.
    Never,
}

/// Which of the published bodies to answer with. Both occur on the same path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// As newer published answers are: `2024-11-06T06:46:51.929Z`, with name, task and percent.
    #[default]
    Current,
    /// As the API reference shows it: `04-Jun-2015 18:11:06:586`, an empty `end_time` even at the
    /// end, and nothing but the image id in `entities`.
    Reference,
}

/// A job and its lifecycle: `INIT`, then `RUNNING`, then its end, by the wall clock.
#[derive(Clone, Debug)]
pub struct Job {
    pub(super) key: JobKey,
    pub(super) start: Start,
    type_name: String,
    init: Duration,
    run: Duration,
    end: End,
    image_id: Option<String>,
    begun_at: Option<Timestamp>,
    layout: Layout,
}

impl Job {
    /// An image export that takes no time and succeeds.
    #[must_use]
    pub fn new(project: impl Into<String>, job: impl Into<String>) -> Self {
        Self {
            key: JobKey::new(project, job),
            start: Start::Creation,
            type_name: "imsNativeExportImageJob".to_owned(),
            init: Duration::ZERO,
            run: Duration::ZERO,
            end: End::Success,
            image_id: Some("1ab4df10-fe18-48b7-91c9-53695fcd9df5".to_owned()),
            begun_at: None,
            layout: Layout::Current,
        }
    }

    /// The finished job of the API reference's example.
    #[must_use]
    pub fn reference_example() -> Self {
        Self::new(
            "ac234de25c6741d2b1273da49eea1b9e",
            "ff8080814dbd65d7014dbe0d84db0013",
        )
        .of_type("createImageByInstance")
        .image_id("e9e91bff-14b6-4a0b-8377-4ed0813e3360")
        .begun_at(
            "2015-06-04T18:11:06.586Z"
                .parse()
                .expect("a valid time stamp"),
        )
        .layout(Layout::Reference)
    }

    /// The same job in another project.
    #[must_use]
    pub fn of_project(mut self, project: impl Into<String>) -> Self {
        self.key.project = project.into();
        self
    }

    /// Its full name.
    #[must_use]
    pub fn key(&self) -> JobKey {
        self.key.clone()
    }

    /// Sets `job_type`.
    #[must_use]
    pub fn of_type(mut self, job_type: impl Into<String>) -> Self {
        self.type_name = job_type.into();
        self
    }

    /// How long it reports `INIT`.
    #[must_use]
    pub fn init_for(mut self, init: Duration) -> Self {
        self.init = init;
        self
    }

    /// How long it reports `RUNNING` after that.
    #[must_use]
    pub fn running_for(mut self, run: Duration) -> Self {
        self.run = run;
        self
    }

    /// Sets the image id that an undisturbed job answers with.
    #[must_use]
    pub fn image_id(mut self, image_id: impl Into<String>) -> Self {
        self.image_id = Some(image_id.into());
        self
    }

    /// Lets it end well without naming an image.
    #[must_use]
    pub fn without_image_id(mut self) -> Self {
        self.image_id = None;
        self
    }

    /// Lets it fail with these texts.
    #[must_use]
    pub fn fails(self, error_code: impl Into<String>, fail_reason: impl Into<String>) -> Self {
        self.ends(End::Fail {
            error_code: Some(error_code.into()),
            fail_reason: Some(fail_reason.into()),
        })
    }

    /// Sets how it ends.
    #[must_use]
    pub fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Sets when it starts.
    #[must_use]
    pub fn starts(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the `begin_time` to show, whatever the real one is; `end_time` follows it.
    #[must_use]
    pub fn begun_at(mut self, begun_at: Timestamp) -> Self {
        self.begun_at = Some(begun_at);
        self
    }

    /// Sets the layout of the answers.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The body for a job that began at `began`, `age` ago.
    pub(super) fn body(&self, began: Timestamp, age: Duration) -> String {
        let phase = self.phase(age);
        let began = self.begun_at.unwrap_or(began);
        let ended = matches!(phase, Phase::Success | Phase::Fail).then(|| {
            began
                .saturating_add(self.init.saturating_add(self.run))
                .unwrap_or(Timestamp::MAX)
        });
        let (error_code, fail_reason) = match (&phase, &self.end) {
            (
                Phase::Fail,
                End::Fail {
                    error_code,
                    fail_reason,
                },
            ) => (error_code.as_deref(), fail_reason.as_deref()),
            _ => (None, None),
        };
        let body = match self.layout {
            Layout::Current => serde_json::to_string(&CurrentBody {
                job_id: &self.key.job,
                job_type: &self.type_name,
                begin_time: format!("{began:.3}"),
                end_time: ended.map_or_else(String::new, |ended| format!("{ended:.3}")),
                status: phase.status(),
                error_code,
                fail_reason,
                entities: CurrentEntities {
                    image_name: "export",
                    image_id: self.image_id.as_deref(),
                    process_percent: phase.percent(),
                    current_task: match phase {
                        Phase::Running { .. } => "ExportImageTask:",
                        _ => "",
                    },
                },
            }),
            Layout::Reference => serde_json::to_string(&ReferenceBody {
                status: phase.status(),
                entities: ReferenceEntities {
                    image_id: match phase {
                        Phase::Success => self.image_id.as_deref(),
                        _ => None,
                    },
                },
                job_id: &self.key.job,
                job_type: &self.type_name,
                begin_time: began.strftime("%d-%b-%Y %H:%M:%S:%3f").to_string(),
                end_time: "",
                error_code,
                fail_reason,
            }),
        };
        body.expect("strings and numbers always serialise")
    }

    fn phase(&self, age: Duration) -> Phase {
        let Some(ran) = age.checked_sub(self.init) else {
            return Phase::Init;
        };
        match self.end {
            End::Never => Phase::Running { ran, of: self.run },
            _ if ran < self.run => Phase::Running { ran, of: self.run },
            End::Success => Phase::Success,
            End::Fail { .. } => Phase::Fail,
        }
    }
}

enum Phase {
    Init,
    Running { ran: Duration, of: Duration },
    Success,
    Fail,
}

impl Phase {
    fn status(&self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Running { .. } => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
        }
    }

    /// A fraction with two digits, as published; exactly 1 only at a good end. A failed job reports
    /// nothing: no such body is public.
    fn percent(&self) -> Option<Number> {
        match self {
            Self::Init => Some(Number::from(0)),
            Self::Running { ran, of } if of.is_zero() || ran >= of => Number::from_f64(0.99),
            Self::Running { ran, of } => {
                let hundredths = (ran.as_secs_f64() / of.as_secs_f64() * 100.0).floor();
                Number::from_f64(hundredths / 100.0)
            }
            Self::Success => Some(Number::from(1)),
            Self::Fail => None,
        }
    }
}

// The order of the fields is the order on the wire, as published.

#[derive(Serialize)]
struct ReferenceBody<'a> {
    status: &'a str,
    entities: ReferenceEntities<'a>,
    job_id: &'a str,
    job_type: &'a str,
    begin_time: String,
    end_time: &'a str,
    error_code: Option<&'a str>,
    fail_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct ReferenceEntities<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<&'a str>,
}

#[derive(Serialize)]
struct CurrentBody<'a> {
    job_id: &'a str,
    job_type: &'a str,
    begin_time: String,
    end_time: String,
    status: &'a str,
    error_code: Option<&'a str>,
    fail_reason: Option<&'a str>,
    entities: CurrentEntities<'a>,
}

#[derive(Serialize)]
struct CurrentEntities<'a> {
    image_name: &'a str,
    /// For an export the source image, which is known from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_percent: Option<Number>,
    current_task: &'a str,
}
