//! The conditions table as tools read it: one test for each situation and tool.

use super::{
    Meaning::{self, InProgress, Stalled, Succeeded, Suspended, Unacknowledged},
    assert_valid, condition, describe,
    fixtures::{
        Fixture,
        Wait::{self, Bad, Either, Good},
        fixtures,
    },
};
use testbed::judges::KstatusVerdict;

/// What tools have to make of an object in one situation.
struct Expected {
    /// The name of the object in `fixtures`.
    object: &'static str,
    /// The reason that `Ready` gives; empty before the first write.
    reason: &'static str,
    meaning: Meaning,
    /// The actions that Argo CD offers.
    actions: &'static [&'static str],
    /// The `kubectl wait` commands that return.
    waits: &'static [Wait],
}

impl Expected {
    fn fixture(&self) -> &'static Fixture {
        let fixture = fixtures().objects.get(self.object);
        let fixture = fixture.expect("an object that kept its status while it was read");
        let ready = condition(&fixture.object, "Ready");
        let reason = ready["reason"].as_str().unwrap_or_default();
        assert_eq!(reason, self.reason, "{}", describe(&fixture.object));
        fixture
    }

    fn check_kstatus(&self) {
        self.check_status(&self.fixture().verdict.kstatus);
    }

    fn check_kstatus_of_flux(&self) {
        self.check_status(&self.fixture().verdict.flux_kstatus);
    }

    fn check_status(&self, verdict: &KstatusVerdict) {
        let expected = self.meaning.kstatus();
        assert_eq!(
            verdict.status, expected,
            "{}: {}",
            self.object, verdict.message
        );
    }

    /// One of Flux's two checkers is for objects in progress, the other for objects at rest. Neither
    /// passes a status that was written for an earlier spec.
    fn check_flux_checker(&self) {
        let verdict = &self.fixture().verdict;
        if self.meaning == Unacknowledged {
            assert!(!verdict.flux_at_rest.is_empty(), "{}", self.object);
        } else {
            let failures = self.meaning.flux_failures(verdict);
            assert!(failures.is_empty(), "{}: {failures:#?}", self.object);
        }
    }

    fn check_argo_health(&self) {
        let fixture = self.fixture();
        let verdict = &fixture.verdict.argo;
        assert_eq!(
            verdict.status,
            self.meaning.argo(),
            "{}: {}",
            self.object,
            verdict.message
        );
        let expected = match self.meaning {
            Unacknowledged => "waiting for the operator",
            _ => condition(&fixture.object, "Ready")["message"]
                .as_str()
                .expect("a message"),
        };
        assert_eq!(verdict.message, expected, "{}", self.object);
    }

    fn check_argo_actions(&self) {
        assert_eq!(
            self.fixture().verdict.argo_actions,
            self.actions,
            "{}",
            self.object
        );
    }

    fn check_kubectl_wait(&self) {
        let returned: Vec<Wait> = self.fixture().returned.iter().copied().collect();
        assert_eq!(returned, self.waits, "{}", self.object);
    }
}

macro_rules! situations {
    ($($name:ident: $object:literal $reason:literal $meaning:ident $actions:tt $waits:tt;)*) => {$(
        mod $name {
            use super::*;

            const EXPECTED: Expected = Expected {
                object: $object,
                reason: $reason,
                meaning: $meaning,
                actions: &$actions,
                waits: &$waits,
            };

            #[test]
            fn is_read_right_by_kstatus() {
                EXPECTED.check_kstatus();
            }

            #[test]
            fn is_read_right_by_kstatus_of_flux() {
                EXPECTED.check_kstatus_of_flux();
            }

            #[test]
            fn passes_the_checker_of_flux() {
                EXPECTED.check_flux_checker();
            }

            #[test]
            fn is_read_right_by_argo_cd() {
                EXPECTED.check_argo_health();
            }

            #[test]
            fn offers_the_right_actions_in_argo_cd() {
                EXPECTED.check_argo_actions();
            }

            #[test]
            fn ends_the_right_waits_of_kubectl() {
                EXPECTED.check_kubectl_wait();
            }
        }
    )*};
}

#[rustfmt::skip]
situations! {
    created_and_not_seen:                "created"              ""                      Unacknowledged ["suspend"] [];
    pending:         "pending"             "Pending"               InProgress       ["suspend"] [];
    credentials_not_found:              "credentials-not-found"      "CredentialsNotFound"   InProgress       ["suspend"] [];
    credentials_invalid:         "credentials-invalid"      "CredentialsInvalid"    InProgress       ["suspend"] [];
    access_denied:          "access-denied"       "AccessDenied"          InProgress       ["suspend"] [];
    endpoint_invalid:      "endpoint-invalid"     "EndpointInvalid"       InProgress       ["suspend"] [];
    endpoint_not_allowed:  "endpoint-not-allowed" "EndpointNotAllowed"    InProgress       ["suspend"] [];
    request_rejected:      "request-rejected"             "RequestRejected"       InProgress       ["suspend"] [];
    job_initializing:                   "job-initializing"              "JobInitializing"       InProgress       ["suspend"] [];
    job_running:                "job-running"              "JobRunning"            InProgress       ["suspend"] [];
    deadline_exceeded:     "deadline-exceeded"             "DeadlineExceeded"      Stalled        ["suspend"] [];
    poll_failed:           "poll-failed"             "PollFailed"            InProgress       ["suspend"] [];
    poll_overdue:           "poll-overdue"             "PollOverdue"            InProgress       ["suspend"] [];
    job_succeeded:                  "job-succeeded"              "JobSucceeded"          Succeeded      []          [Good, Either];
    success_of_a_job_type_without_image:      "job-succeeded-without-image"      "JobSucceeded"          Succeeded      []          [Good, Either];
    image_id_pending:      "image-id-pending"             "ImageIDPending"        InProgress       ["suspend"] [];
    image_id_missing:      "image-id-missing"             "ImageIDMissing"        Stalled        []          [Either];
    job_failed:                   "job-failed"              "JobFailed"             Stalled        []          [Bad, Either];
    job_status_unrecognized:           "job-status-unrecognized"              "JobStatusUnrecognized" InProgress       ["suspend"] [];
    job_not_found_within_the_grace:         "job-not-found-within-the-grace"             "JobNotFound"           InProgress       ["suspend"] [];
    job_not_found_for_good:              "job-not-found-for-good"              "JobNotFound"           Stalled        ["suspend"] [];
    suspended:              "suspended"              "Suspended"             Suspended      ["resume"]  [];
    // kubectl's jsonpath ignores generations.
    changed_after_success:  "changed-after-success"              "JobSucceeded"          Unacknowledged ["resume"]  [Either];
    changed_after_success_and_acknowledged:    "changed-after-success-and-acknowledged" "JobSucceeded"          Succeeded      ["resume"]  [Good, Either];
}

#[test]
fn every_version_before_those_is_read_right_too() {
    for versions in &fixtures().versions {
        assert_valid(versions);
    }
}
