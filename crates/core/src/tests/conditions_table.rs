//! The conditions table of `docs/conditions.md`: what the status shows in each phase, and how the job is
//! polled.

use super::{
    invariants::condition,
    samples::{
        answer_with, fail, init, misconfigured, not_found, object, running, secret_missing, secs,
        success, success_without_image, throttled, unavailable, unrecognized,
    },
    world::World,
};
use image_export_api::conditions::types;
use image_export_model::{ConfigurationReason, JobState};
use std::time::Duration;

/// How a job is polled in a phase.
enum Pace {
    /// This many seconds between two polls.
    Every(u64),
    /// At growing intervals, at most once a second.
    Backoff,
    /// Not at all: the Secret is read instead, at most this many seconds apart.
    ReadsSecret(u64),
    /// Not at all.
    Stops,
}
use Pace::{Backoff, Every, ReadsSecret, Stops};

/// A phase that is brought about, and what it must show.
struct Line {
    /// Which case of the phase, where there are several.
    case: &'static str,
    /// Brings the object `x` into the phase.
    situation: fn(&mut World),
    /// Seconds after which the phase is shown.
    within: u64,
    /// Status of `Ready`
    ready: &'static str,
    /// Status of `Succeeded`
    succeeded: &'static str,
    /// `Reconciling` or `Stalled`; `None`: neither
    progress: Option<&'static str>,
    /// Reason of `Ready`
    reason: &'static str,
    /// `status.status`
    job_status: Option<&'static str>,
    /// `status.imageID`
    image_id: Option<&'static str>,
    /// Whether `completionTime` is set.
    ended: bool,
    pace: Pace,
    /// Message of `Ready`
    message: &'static str,
    /// Reasons of the events up to here; those of warnings begin with "!".
    events: &'static [&'static str],
}

impl Line {
    /// Names the line in messages of assertions.
    fn label(&self) -> String {
        let separator = if self.case.is_empty() { "" } else { ", " };
        format!("{}{separator}{}", self.reason, self.case)
    }
}

/// What most phases show: the operator works towards an end.
const RECONCILING: Line = Line {
    case: "",
    situation: |_| {},
    within: 5,
    ready: "Unknown",
    succeeded: "Unknown",
    progress: Some("Reconciling"),
    reason: "",
    job_status: None,
    image_id: None,
    ended: false,
    pace: Every(30),
    message: "",
    events: &[],
};

/// What most phases show that wait for somebody to act.
const STALLED: Line = Line {
    ready: "False",
    progress: Some("Stalled"),
    ..RECONCILING
};

/// Creates the object `x`.
fn create(world: &mut World) {
    world.create(object("x"));
}

/// Creates the object `x`, about whose job the cloud reports this.
fn cloud_reports(world: &mut World, observation: image_export_model::Observation) {
    world.reports("x", observation);
    create(world);
}

#[allow(clippy::too_many_lines)] // as long as the table
fn table() -> Vec<Line> {
    use ConfigurationReason::{
        AccessDenied, CredentialsInvalid, EndpointInvalid, EndpointNotAllowed, RequestRejected,
    };
    vec![
        Line {
            situation: |world| {
                world.poll_time = secs(40);
                create(world);
            },
            within: 11,
            reason: "Pending",
            pace: Backoff,
            message: "Waiting for the first answer about job job-x.",
            events: &[],
            ..RECONCILING
        },
        Line {
            case: "with a known cause",
            situation: |world| cloud_reports(world, unavailable()),
            within: 11,
            reason: "Pending",
            pace: Backoff,
            message: "Waiting for the first answer about job job-x: ims.example.com answered 503.",
            events: &[],
            ..RECONCILING
        },
        Line {
            situation: |world| {
                world.secrets.insert("otc".into(), Err(secret_missing()));
                create(world);
            },
            reason: "CredentialsNotFound",
            pace: ReadsSecret(60),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!CredentialsNotFound"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, misconfigured(CredentialsInvalid)),
            reason: "CredentialsInvalid",
            pace: Every(300),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!CredentialsInvalid"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, misconfigured(AccessDenied)),
            reason: "AccessDenied",
            pace: Every(300),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!AccessDenied"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, misconfigured(EndpointInvalid)),
            reason: "EndpointInvalid",
            pace: Every(300),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!EndpointInvalid"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, misconfigured(EndpointNotAllowed)),
            reason: "EndpointNotAllowed",
            pace: Every(300),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!EndpointNotAllowed"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, misconfigured(RequestRejected)),
            reason: "RequestRejected",
            pace: Every(300),
            message: "Job job-x cannot be queried: fix this.",
            events: &["!RequestRejected"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, init()),
            reason: "JobInitializing",
            job_status: Some("INIT"),
            message: "Job job-x has been accepted and has not started yet.",
            events: &[],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, running()),
            reason: "JobRunning",
            job_status: Some("RUNNING"),
            message: "Job job-x is running.",
            events: &[],
            ..RECONCILING
        },
        Line {
            situation: |world| {
                cloud_reports(world, running());
                world.run(5);
                world.reports("x", unavailable());
            },
            within: 600,
            reason: "PollFailed",
            job_status: Some("RUNNING"),
            pace: Backoff,
            message: "Job job-x cannot be queried at the moment: ims.example.com answered 503; \
                      the operator keeps trying.",
            events: &["!PollFailed"],
            ..RECONCILING
        },
        Line {
            situation: |world| {
                cloud_reports(world, running());
                world.run(5);
                world.reports("x", throttled(Some(secs(60))));
            },
            within: 340,
            reason: "PollOverdue",
            job_status: Some("RUNNING"),
            pace: Backoff,
            message: "The poll of job job-x is overdue: the cloud asks to wait (throttling or \
                      Retry-After); if that lasts, raise the poll periods or lower --polls-per-second.",
            events: &["!PollOverdue"],
            ..RECONCILING
        },
        Line {
            situation: |world| {
                let mut late = object("x");
                late.spec.deadline_seconds = Some(60);
                world.reports("x", running());
                world.create(late);
            },
            // The poll that was due when the deadline passed still comes.
            within: 95,
            reason: "DeadlineExceeded",
            job_status: Some("RUNNING"),
            pace: Every(300),
            message: "Job job-x has not ended within spec.deadlineSeconds: check it in the \
                      cloud, or raise the deadline; an end that still comes will be shown.",
            events: &["!DeadlineExceeded"],
            ..STALLED
        },
        Line {
            situation: |world| cloud_reports(world, success()),
            ready: "True",
            succeeded: "True",
            progress: None,
            reason: "JobSucceeded",
            job_status: Some("SUCCESS"),
            image_id: Some("image-1"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded: source image image-1 is exported.",
            events: &["JobSucceeded"],
            ..RECONCILING
        },
        Line {
            case: "of a type that has no image",
            situation: |world| {
                let members = answer_with(JobState::Success, |answer| {
                    answer.job_type = Some("imsAddImageMembersJob".into());
                });
                cloud_reports(world, members);
            },
            ready: "True",
            succeeded: "True",
            progress: None,
            reason: "JobSucceeded",
            job_status: Some("SUCCESS"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded; a job of type imsAddImageMembersJob has no image id.",
            events: &["JobSucceeded"],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, success_without_image()),
            reason: "ImageIDPending",
            job_status: Some("SUCCESS"),
            pace: Every(10),
            message: "Job job-x has succeeded; its image id is not known yet.",
            events: &[],
            ..RECONCILING
        },
        Line {
            situation: |world| cloud_reports(world, success_without_image()),
            within: 60,
            succeeded: "True",
            reason: "ImageIDMissing",
            job_status: Some("SUCCESS"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded, but the cloud reported no image id: look the image up \
                      in the cloud, or change the annotation imageexport.dev/poll-requested-at to \
                      poll once more.",
            events: &["!ImageIDMissing"],
            ..STALLED
        },
        Line {
            situation: |world| cloud_reports(world, fail()),
            succeeded: "False",
            reason: "JobFailed",
            job_status: Some("FAIL"),
            ended: true,
            pace: Stops,
            message: "Job job-x has failed with IMG.0148: disk full.",
            events: &["!JobFailed"],
            ..STALLED
        },
        Line {
            situation: |world| cloud_reports(world, unrecognized("PARTIAL_FAIL")),
            reason: "JobStatusUnrecognized",
            job_status: Some("PARTIAL_FAIL"),
            pace: Every(30),
            message: "Job job-x has a status that this version of the operator does not recognize: \
                      PARTIAL_FAIL.",
            events: &["!JobStatusUnrecognized"],
            ..RECONCILING
        },
        Line {
            case: "within the grace period",
            situation: |world| cloud_reports(world, not_found()),
            reason: "JobNotFound",
            pace: Every(60),
            message: "The cloud currently finds no job job-x.",
            events: &["!JobNotFound"],
            ..RECONCILING
        },
        Line {
            case: "for good",
            situation: |world| cloud_reports(world, not_found()),
            within: 400,
            reason: "JobNotFound",
            pace: Every(300),
            message: "The cloud finds no job job-x: check jobID and projectID, and that the \
                      credentials are for the job's region.",
            events: &["!JobNotFound"],
            ..STALLED
        },
        Line {
            case: "for good, of a job that was found before",
            situation: |world| {
                cloud_reports(world, running());
                world.run(5);
                world.reports("x", not_found());
            },
            within: 460,
            reason: "JobNotFound",
            job_status: Some("RUNNING"),
            pace: Every(300),
            message: "The cloud no longer finds job job-x, so its outcome is lost: check in the \
                      cloud whether its image exists.",
            events: &["!JobNotFound"],
            ..STALLED
        },
        Line {
            situation: |world| {
                cloud_reports(world, running());
                world.run(5);
                world.change("x", |object| object.spec.suspend = true);
            },
            progress: None,
            reason: "Suspended",
            job_status: Some("RUNNING"),
            pace: Stops,
            message: "Job job-x is not polled while spec.suspend is true.",
            events: &["Suspended"],
            ..RECONCILING
        },
    ]
}

#[test]
fn each_phase_shows_its_row_of_the_conditions_table() {
    for line in table() {
        let label = line.label();
        let mut world = World::new();
        (line.situation)(&mut world);
        world.run(line.within);

        let status = world.status("x").clone();
        let of = |type_| condition(&status, type_);
        let ready = of(types::READY).unwrap_or_else(|| panic!("{label}: {status:?}"));
        let succeeded = of(types::SUCCEEDED).expect("always present");
        assert_eq!(
            (&*ready.status, &*ready.reason),
            (line.ready, line.reason),
            "{label}"
        );
        assert_eq!(ready.message, line.message, "{label}");
        assert_eq!(succeeded.status, line.succeeded, "{label}");
        // The job did succeed although its image id is missing, and the job's own condition shows that.
        let own = if line.reason == "ImageIDMissing" {
            "JobSucceeded"
        } else {
            line.reason
        };
        assert_eq!(succeeded.reason, own, "{label}");
        // What blocks polling is said once less.
        let short = match line.reason {
            "ImageIDMissing" => Some("Job job-x has succeeded."),
            "Pending" => Some("Waiting for the first answer about job job-x."),
            reason if line.message.contains("fix this") || reason.starts_with("Poll") => {
                Some("Job job-x was not seen to end.")
            }
            _ => None,
        };
        assert_eq!(succeeded.message, short.unwrap_or(line.message), "{label}");
        for type_ in [types::RECONCILING, types::STALLED] {
            let shown = of(type_).map(|c| (&*c.status, &*c.reason));
            let expected = (line.progress == Some(type_)).then_some(("True", line.reason));
            assert_eq!(shown, expected, "{label}: {type_}");
        }
        assert_eq!(status.status.as_deref(), line.job_status, "{label}");
        assert_eq!(status.completion_time.is_some(), line.ended, "{label}");
        assert_eq!(
            status.observed_generation,
            world.stored("x").metadata.generation
        );
        assert_eq!(status.image_id.as_deref(), line.image_id, "{label}");
        let reason = (line.reason == "JobFailed").then_some("disk full");
        assert_eq!(status.fail_reason.as_deref(), reason, "{label}");

        let events: Vec<String> = world
            .events
            .iter()
            .map(|event| format!("{}{}", if event.warning { "!" } else { "" }, event.reason))
            .collect();
        assert_eq!(events, line.events, "{label}");
        let ready = condition(world.status("x"), types::READY).expect("a Ready condition");
        if let Some(event) = world
            .events
            .iter()
            .rfind(|event| event.reason == ready.reason)
        {
            // One Event for a reason, although its message becomes another.
            let is_same = event.note == ready.message;
            assert!(
                is_same || line.reason == "JobNotFound",
                "{label}: {event:?}"
            );
        }
        assert!(
            world.writes.len() <= world.reasons_shown().len() + 1,
            "{label}"
        );

        check_pace(&mut world, &line);
    }
}

/// Checks how the job is polled while the phase lasts.
fn check_pace(world: &mut World, line: &Line) {
    let label = line.label();
    let (polls, reads) = (world.polls.len(), world.reads.len());
    let began = world.now;
    world.run(match line.pace {
        // Not past the end of the phase, which five polls bring about.
        Every(10) => 41,
        Every(60) => 200,
        _ => 1000,
    });
    let sent: Vec<Duration> = world.polls[polls..].iter().map(|poll| poll.at).collect();
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    match line.pace {
        Every(seconds) => {
            assert!(gaps.len() >= 2, "{label}: {sent:?}");
            let (least, most) = (secs(seconds), secs(seconds) + Duration::from_millis(200));
            let kept = gaps.iter().all(|gap| (least..most).contains(gap));
            assert!(kept, "{label}: {gaps:?}");
        }
        Backoff => {
            assert!(!sent.is_empty(), "{label}");
            let kept = gaps.iter().all(|&gap| gap >= secs(1) && gap <= secs(302));
            assert!(kept, "{label}: {gaps:?}");
        }
        ReadsSecret(most) => {
            assert!(sent.is_empty(), "{label}: {sent:?}");
            let mut last = began;
            for (at, _) in &world.reads[reads..] {
                assert!(*at - last <= secs(most + 1), "{label}");
                last = *at;
            }
            assert!(world.now - last <= secs(most + 1), "{label}");
        }
        Stops => assert!(sent.is_empty(), "{label}: {sent:?}"),
    }
}
