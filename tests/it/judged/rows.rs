//! The conditions table as tools read it: one test for each row and judge.

use super::{
    Stand::{self, InMotion, Stalled, Succeeded, Suspended, Unacknowledged},
    assert_all_is_right, condition, describe,
    stage::{
        Scene,
        Wait::{self, Bad, Either, Good},
        stage,
    },
};
use testbed::judges::KstatusVerdict;

/// What tools are to make of one row.
struct Row {
    /// The object that `stage` has in this row.
    object: &'static str,
    /// The reason that `Ready` gives; empty before the first write.
    reason: &'static str,
    stand: Stand,
    /// What Argo CD offers to do.
    actions: &'static [&'static str],
    /// The one-liners with `kubectl wait` that return.
    waits: &'static [Wait],
}

impl Row {
    fn scene(&self) -> &'static Scene {
        let scene = stage().scenes.get(self.object);
        let scene = scene.expect("an object that stands still");
        let ready = condition(&scene.object, "Ready");
        let reason = ready["reason"].as_str().unwrap_or_default();
        assert_eq!(reason, self.reason, "{}", describe(&scene.object));
        scene
    }

    fn check_kstatus(&self) {
        self.check_status(&self.scene().verdict.kstatus);
    }

    fn check_kstatus_of_flux(&self) {
        self.check_status(&self.scene().verdict.flux_kstatus);
    }

    fn check_status(&self, said: &KstatusVerdict) {
        let expected = self.stand.kstatus();
        assert_eq!(said.status, expected, "{}: {}", self.object, said.message);
    }

    /// Its two sets of rules are for objects in motion and at rest; it has none for a status that is
    /// not about the present spec, and says so.
    fn check_flux_checker(&self) {
        let verdict = &self.scene().verdict;
        if self.stand == Unacknowledged {
            assert!(!verdict.flux_at_rest.is_empty(), "{}", self.object);
        } else {
            let against = self.stand.against(verdict);
            assert!(against.is_empty(), "{}: {against:#?}", self.object);
        }
    }

    fn check_argo_health(&self) {
        let scene = self.scene();
        let said = &scene.verdict.argo;
        assert_eq!(
            said.status,
            self.stand.argo(),
            "{}: {}",
            self.object,
            said.message
        );
        let words = match self.stand {
            Unacknowledged => "waiting for the operator",
            _ => condition(&scene.object, "Ready")["message"]
                .as_str()
                .expect("a message"),
        };
        assert_eq!(said.message, words, "{}", self.object);
    }

    fn check_argo_actions(&self) {
        assert_eq!(
            self.scene().verdict.argo_actions,
            self.actions,
            "{}",
            self.object
        );
    }

    fn check_kubectl_wait(&self) {
        let returned: Vec<Wait> = self.scene().returned.iter().copied().collect();
        assert_eq!(returned, self.waits, "{}", self.object);
    }
}

macro_rules! rows {
    ($($row:ident: $object:literal $reason:literal $stand:ident $actions:tt $waits:tt;)*) => {$(
        mod $row {
            use super::*;

            const ROW: Row = Row {
                object: $object,
                reason: $reason,
                stand: $stand,
                actions: &$actions,
                waits: &$waits,
            };

            #[test]
            fn is_read_rightly_by_kstatus() {
                ROW.check_kstatus();
            }

            #[test]
            fn is_read_rightly_by_kstatus_of_flux() {
                ROW.check_kstatus_of_flux();
            }

            #[test]
            fn keeps_the_rules_of_fluxs_checker() {
                ROW.check_flux_checker();
            }

            #[test]
            fn is_read_rightly_by_argo_cd() {
                ROW.check_argo_health();
            }

            #[test]
            fn offers_the_right_actions_in_argo_cd() {
                ROW.check_argo_actions();
            }

            #[test]
            fn ends_the_right_waits_of_kubectl() {
                ROW.check_kubectl_wait();
            }
        }
    )*};
}

#[rustfmt::skip]
rows! {
    row_0_created:                "row-0"              ""                      Unacknowledged ["suspend"] [];
    row_0b_no_answer_yet:         "row-0b"             "Pending"               InMotion       ["suspend"] [];
    row_1_no_secret:              "row-1-missing"      "CredentialsNotFound"   InMotion       ["suspend"] [];
    row_1_rejected_token:         "row-1-invalid"      "CredentialsInvalid"    InMotion       ["suspend"] [];
    row_1_access_denied:          "row-1-denied"       "AccessDenied"          InMotion       ["suspend"] [];
    row_1b_endpoint_invalid:      "row-1b-invalid"     "EndpointInvalid"       InMotion       ["suspend"] [];
    row_1b_endpoint_not_allowed:  "row-1b-not-allowed" "EndpointNotAllowed"    InMotion       ["suspend"] [];
    row_1c_request_rejected:      "row-1c"             "RequestRejected"       InMotion       ["suspend"] [];
    row_2_init:                   "row-2"              "JobInitializing"       InMotion       ["suspend"] [];
    row_3_running:                "row-3"              "JobRunning"            InMotion       ["suspend"] [];
    row_3d_deadline_exceeded:     "row-3d"             "DeadlineExceeded"      Stalled        ["suspend"] [];
    row_3e_poll_failed:           "row-3e"             "PollFailed"            InMotion       ["suspend"] [];
    row_4_image:                  "row-4"              "JobSucceeded"          Succeeded      []          [Good, Either];
    row_4_job_without_image:      "row-4-members"      "JobSucceeded"          Succeeded      []          [Good, Either];
    row_4a_image_id_pending:      "row-4a"             "ImageIDPending"        InMotion       ["suspend"] [];
    row_4b_image_id_missing:      "row-4b"             "ImageIDMissing"        Stalled        []          [Either];
    row_5_fail:                   "row-5"              "JobFailed"             Stalled        []          [Bad, Either];
    row_6_unknown_word:           "row-6"              "JobStatusUnrecognized" InMotion       ["suspend"] [];
    row_7a_not_found_yet:         "row-7a"             "JobNotFound"           InMotion       ["suspend"] [];
    row_7_not_found:              "row-7"              "JobNotFound"           Stalled        ["suspend"] [];
    row_8_suspended:              "row-8"              "Suspended"             Suspended      ["resume"]  [];
    // kubectl's jsonpath knows no generations.
    row_9_finished_then_changed:  "row-9"              "JobSucceeded"          Unacknowledged ["resume"]  [Either];
    row_9_change_acknowledged:    "row-9-acknowledged" "JobSucceeded"          Succeeded      ["resume"]  [Good, Either];
}

#[test]
fn on_the_way_into_their_rows_all_objects_were_judged_rightly_too() {
    for versions in &stage().versions {
        assert_all_is_right(versions);
    }
}
