//! The conditions table, line by line, as `docs/conditions.md` has it.

use super::{
    oracle::condition,
    samples::{
        fail, init, not_found, object, refused, running, says, secret_missing, secs, success,
        success_without_image, unavailable, word,
    },
    world::World,
};
use image_export_api::conditions::types;
use image_export_model::{ConfigurationReason, JobState};
use std::time::Duration;

/// How an object is polled while it shows a row.
enum Pace {
    /// So many seconds between two polls.
    Every(u64),
    /// Some time, but not more often than once a second.
    Backoff,
    /// Not at all: the Secret is read instead, after at most so many seconds.
    ReadsSecret(u64),
    Stops,
}
use Pace::{Backoff, Every, ReadsSecret, Stops};

struct Line {
    number: &'static str,
    /// Brings about the situation for the object `x`.
    situation: fn(&mut World),
    /// Seconds after which the row is shown.
    within: u64,
    /// `Ready`, `Succeeded`
    ready: &'static str,
    succeeded: &'static str,
    /// `Reconciling` or `Stalled`
    activity: Option<&'static str>,
    reason: &'static str,
    /// `status.status`
    word: Option<&'static str>,
    /// Whether `completionTime` is set.
    ended: bool,
    pace: Pace,
    message: &'static str,
    /// Reasons of the events on the way; those of warnings begin with "!".
    events: &'static [&'static str],
}

/// An object that works towards an end and says so.
const AT_WORK: Line = Line {
    number: "",
    situation: |_| {},
    within: 5,
    ready: "Unknown",
    succeeded: "Unknown",
    activity: Some("Reconciling"),
    reason: "",
    word: None,
    ended: false,
    pace: Every(30),
    message: "",
    events: &[],
};

const STALLED: Line = Line {
    ready: "False",
    activity: Some("Stalled"),
    ..AT_WORK
};

fn begin(world: &mut World) {
    world.create(object("x"));
}

fn cloud_says(world: &mut World, observation: image_export_model::Observation) {
    world.says("x", observation);
    begin(world);
}

#[allow(clippy::too_many_lines)] // as long as the table
fn table() -> Vec<Line> {
    vec![
        Line {
            number: "0b",
            situation: |world| {
                world.poll_time = secs(40);
                begin(world);
            },
            within: 11,
            reason: "Pending",
            pace: Backoff,
            message: "Waiting for the first answer about job job-x.",
            events: &["Pending"],
            ..AT_WORK
        },
        Line {
            number: "1 CredentialsNotFound",
            situation: |world| {
                world.secrets.insert("otc".into(), Err(secret_missing()));
                begin(world);
            },
            reason: "CredentialsNotFound",
            pace: ReadsSecret(60),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!CredentialsNotFound"],
            ..AT_WORK
        },
        Line {
            number: "1 CredentialsInvalid",
            situation: |world| cloud_says(world, refused(ConfigurationReason::CredentialsInvalid)),
            reason: "CredentialsInvalid",
            pace: Every(300),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!CredentialsInvalid"],
            ..AT_WORK
        },
        Line {
            number: "1 AccessDenied",
            situation: |world| cloud_says(world, refused(ConfigurationReason::AccessDenied)),
            reason: "AccessDenied",
            pace: Every(300),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!AccessDenied"],
            ..AT_WORK
        },
        Line {
            number: "1b EndpointInvalid",
            situation: |world| cloud_says(world, refused(ConfigurationReason::EndpointInvalid)),
            reason: "EndpointInvalid",
            pace: Every(300),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!EndpointInvalid"],
            ..AT_WORK
        },
        Line {
            number: "1b EndpointNotAllowed",
            situation: |world| cloud_says(world, refused(ConfigurationReason::EndpointNotAllowed)),
            reason: "EndpointNotAllowed",
            pace: Every(300),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!EndpointNotAllowed"],
            ..AT_WORK
        },
        Line {
            number: "1c",
            situation: |world| cloud_says(world, refused(ConfigurationReason::RequestRejected)),
            reason: "RequestRejected",
            pace: Every(300),
            message: "Job job-x cannot be queried: mend this.",
            events: &["!RequestRejected"],
            ..AT_WORK
        },
        Line {
            number: "2",
            situation: |world| cloud_says(world, init()),
            reason: "JobInitializing",
            word: Some("INIT"),
            message: "Job job-x has been accepted and has not started yet.",
            events: &["JobInitializing"],
            ..AT_WORK
        },
        Line {
            number: "3",
            situation: |world| cloud_says(world, running()),
            reason: "JobRunning",
            word: Some("RUNNING"),
            message: "Job job-x is running.",
            events: &["JobRunning"],
            ..AT_WORK
        },
        Line {
            number: "3e",
            situation: |world| {
                cloud_says(world, running());
                world.run(5);
                world.says("x", unavailable());
            },
            within: 600,
            reason: "PollFailed",
            word: Some("RUNNING"),
            pace: Backoff,
            message: "Job job-x cannot be queried at the moment: ims.example.com answered 503; \
                      the operator keeps trying.",
            events: &["JobRunning", "!PollFailed"],
            ..AT_WORK
        },
        Line {
            number: "3d",
            situation: |world| {
                let mut late = object("x");
                late.spec.deadline_seconds = Some(60);
                world.says("x", running());
                world.create(late);
            },
            // The poll that was due when the deadline passed still comes.
            within: 95,
            reason: "DeadlineExceeded",
            word: Some("RUNNING"),
            pace: Every(300),
            message: "Job job-x has not ended within spec.deadlineSeconds: check it in the \
                      cloud, or raise the deadline; an end that still comes will be shown.",
            events: &["JobRunning", "!DeadlineExceeded"],
            ..STALLED
        },
        Line {
            number: "4",
            situation: |world| cloud_says(world, success()),
            ready: "True",
            succeeded: "True",
            activity: None,
            reason: "JobSucceeded",
            word: Some("SUCCESS"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded: source image image-1 is exported.",
            events: &["JobSucceeded"],
            ..AT_WORK
        },
        Line {
            number: "4, a type that has no image",
            situation: |world| {
                let members = says(JobState::Success, |answer| {
                    answer.job_type = Some("imsAddImageMembersJob".into());
                });
                cloud_says(world, members);
            },
            ready: "True",
            succeeded: "True",
            activity: None,
            reason: "JobSucceeded",
            word: Some("SUCCESS"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded; a job of type imsAddImageMembersJob has no image id.",
            events: &["JobSucceeded"],
            ..AT_WORK
        },
        Line {
            number: "4a",
            situation: |world| cloud_says(world, success_without_image()),
            reason: "ImageIDPending",
            word: Some("SUCCESS"),
            pace: Every(10),
            message: "Job job-x has succeeded; its image id is not known yet.",
            events: &["ImageIDPending"],
            ..AT_WORK
        },
        Line {
            number: "4b",
            situation: |world| cloud_says(world, success_without_image()),
            within: 60,
            succeeded: "True",
            reason: "ImageIDMissing",
            word: Some("SUCCESS"),
            ended: true,
            pace: Stops,
            message: "Job job-x has succeeded, but the cloud reported no image id: look the image up \
                      in the cloud, or change the annotation imageexport.dev/poll-requested-at to \
                      poll once more.",
            events: &["ImageIDPending", "!ImageIDMissing"],
            ..STALLED
        },
        Line {
            number: "5",
            situation: |world| cloud_says(world, fail()),
            succeeded: "False",
            reason: "JobFailed",
            word: Some("FAIL"),
            ended: true,
            pace: Stops,
            message: "Job job-x has failed with IMG.0148: disk full.",
            events: &["!JobFailed"],
            ..STALLED
        },
        Line {
            number: "6",
            situation: |world| cloud_says(world, word("PARTIAL_FAIL")),
            reason: "JobStatusUnrecognized",
            word: Some("PARTIAL_FAIL"),
            pace: Every(300),
            message: "Job job-x has a status that this version of the operator does not recognize: \
                      PARTIAL_FAIL.",
            events: &["!JobStatusUnrecognized"],
            ..AT_WORK
        },
        Line {
            number: "7a",
            situation: |world| cloud_says(world, not_found()),
            reason: "JobNotFound",
            pace: Every(60),
            message: "The cloud currently finds no job job-x.",
            events: &["!JobNotFound"],
            ..AT_WORK
        },
        Line {
            number: "7",
            situation: |world| cloud_says(world, not_found()),
            within: 400,
            reason: "JobNotFound",
            pace: Every(300),
            message: "The cloud finds no job job-x: check jobID and projectID, and that the \
                      credentials are for the job's region.",
            events: &["!JobNotFound"],
            ..STALLED
        },
        Line {
            number: "7, of a job that was known",
            situation: |world| {
                cloud_says(world, running());
                world.run(5);
                world.says("x", not_found());
            },
            within: 460,
            reason: "JobNotFound",
            word: Some("RUNNING"),
            pace: Every(300),
            message: "The cloud no longer finds job job-x, so its outcome is lost: check in the \
                      cloud whether its image exists.",
            events: &["JobRunning", "!JobNotFound"],
            ..STALLED
        },
        Line {
            number: "8",
            situation: |world| {
                cloud_says(world, running());
                world.run(5);
                world.change("x", |object| object.spec.suspend = true);
            },
            activity: None,
            reason: "Suspended",
            word: Some("RUNNING"),
            pace: Stops,
            message: "Job job-x is not polled while spec.suspend is true.",
            events: &["JobRunning", "Suspended"],
            ..AT_WORK
        },
    ]
}

#[test]
fn the_conditions_table() {
    for line in table() {
        let number = line.number;
        let mut world = World::new();
        (line.situation)(&mut world);
        world.run(line.within);

        let status = world.status("x").clone();
        let of = |type_| condition(&status, type_);
        let ready = of(types::READY).unwrap_or_else(|| panic!("{number}: {status:?}"));
        let succeeded = of(types::SUCCEEDED).expect("always present");
        assert_eq!(
            (&*ready.status, &*ready.reason),
            (line.ready, line.reason),
            "row {number}"
        );
        assert_eq!(ready.message, line.message, "row {number}");
        assert_eq!(succeeded.status, line.succeeded, "row {number}");
        // Row 4b: the job did succeed, and its own condition says so.
        let own = if number == "4b" {
            "JobSucceeded"
        } else {
            line.reason
        };
        assert_eq!(succeeded.reason, own, "row {number}");
        for activity in [types::RECONCILING, types::STALLED] {
            let shown = of(activity).map(|c| (&*c.status, &*c.reason));
            let expected = (line.activity == Some(activity)).then_some(("True", line.reason));
            assert_eq!(shown, expected, "row {number}: {activity}");
        }
        assert_eq!(status.status.as_deref(), line.word, "row {number}");
        assert_eq!(status.completion_time.is_some(), line.ended, "row {number}");
        assert_eq!(
            status.observed_generation,
            world.stored("x").metadata.generation
        );
        let image = (number == "4").then_some("image-1");
        assert_eq!(status.image_id.as_deref(), image, "row {number}");
        let reason = (number == "5").then_some("disk full");
        assert_eq!(status.fail_reason.as_deref(), reason, "row {number}");

        let told: Vec<String> = world
            .events
            .iter()
            .map(|note| format!("{}{}", if note.warning { "!" } else { "" }, note.reason))
            .collect();
        assert_eq!(told, line.events, "row {number}");
        assert!(world.writes.len() <= line.events.len() + 1, "row {number}");

        check_pace(&mut world, &line);
    }
}

fn check_pace(world: &mut World, line: &Line) {
    let number = line.number;
    let (polls, reads) = (world.polls.len(), world.reads.len());
    let began = world.now;
    world.run(match line.pace {
        // Up to the end of the row, which five polls bring about.
        Every(10) => 41,
        Every(60) => 200,
        _ => 1000,
    });
    let sent: Vec<Duration> = world.polls[polls..].iter().map(|poll| poll.at).collect();
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    match line.pace {
        Every(seconds) => {
            assert!(gaps.len() >= 2, "row {number}: {sent:?}");
            let (least, most) = (secs(seconds), secs(seconds) + Duration::from_millis(200));
            let kept = gaps.iter().all(|gap| (least..most).contains(gap));
            assert!(kept, "row {number}: {gaps:?}");
        }
        Backoff => {
            assert!(!sent.is_empty(), "row {number}");
            let kept = gaps.iter().all(|&gap| gap >= secs(1) && gap <= secs(302));
            assert!(kept, "row {number}: {gaps:?}");
        }
        ReadsSecret(most) => {
            assert!(sent.is_empty(), "row {number}: {sent:?}");
            let mut last = began;
            for (at, _) in &world.reads[reads..] {
                assert!(*at - last <= secs(most + 1), "row {number}");
                last = *at;
            }
            assert!(world.now - last <= secs(most + 1), "row {number}");
        }
        Stops => assert!(sent.is_empty(), "row {number}: {sent:?}"),
    }
}
