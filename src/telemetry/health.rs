//! The state behind the probes: live while the control loop turns; ready once all objects were
//! listed, unless the API server rejects every call or a watch is down for long.

use image_export_core::Source;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The control loop is stuck if it has not turned for this long.
const STUCK: Duration = Duration::from_secs(60);

/// The operator is not ready once the API server has rejected every call for this long. Longer than a watch
/// lasts: a watch that is renewed shows that the operator is let in.
const REJECTED: Duration = Duration::from_secs(60);

/// The operator is not ready once a watch has not been answered for this long. While all is well, the API
/// server accepts it anew each minute.
const WATCH_DOWN: Duration = Duration::from_secs(5 * 60);

/// Shared between the loop, the watches and the probes.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last turn of the control loop.
    last_beat: AtomicU64,
    listed: AtomicBool,
    /// What keeps each watch from working.
    problems: Mutex<BTreeMap<Source, String>>,
    /// What keeps this process from being a candidate for leadership.
    election: Mutex<Option<String>>,
    /// When the API server last accepted a list or a watch of each.
    watched: Mutex<BTreeMap<Source, Instant>>,
    /// Those since the last call that the API server accepted.
    rejections: Mutex<Option<Rejections>>,
}

/// Calls that the API server rejected, none accepted in between.
#[derive(Clone, Copy, Debug)]
struct Rejections {
    first: Instant,
    last: Instant,
    status: u16,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            problems: Mutex::default(),
            election: Mutex::default(),
            watched: Mutex::default(),
            rejections: Mutex::default(),
        }
    }
}

impl Health {
    /// Call it on each turn of the control loop.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(elapsed, Ordering::Relaxed);
    }

    /// Call it when all objects were listed once.
    pub fn set_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// Whether all objects were listed once.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Call it when a watch works.
    pub fn watch_works(&self, source: Source) {
        self.problems().remove(&source);
    }

    /// Call it when a watch fails; `problem` is for people.
    pub fn watch_fails(&self, source: Source, problem: String) {
        self.problems().insert(source, problem);
    }

    /// Call it with the status of each answer to a list or a watch.
    pub fn watch_answered(&self, source: Source, status: u16) {
        if (200..300).contains(&status) {
            self.watched().insert(source, Instant::now());
        }
    }

    /// Which watches have been down for long, and why.
    fn watch_outage(&self) -> Option<String> {
        let problems = self.problems();
        let watched = self.watched();
        let times = watched.iter().map(|(source, at)| (source, at.elapsed()));
        let down = times.filter(|(_, time)| *time >= WATCH_DOWN);
        let lines = down.map(|(source, time)| {
            let seconds = time.as_secs();
            let problem = problems.get(source).map_or("a watch", String::as_str);
            format!("{problem}: changes of objects have not been seen for {seconds} s")
        });
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, BTreeMap<Source, Instant>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, BTreeMap<Source, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call it when the Lease cannot be read or written, and when it can again.
    pub fn set_election_problem(&self, problem: Option<String>) {
        *self.election.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Call it with the status of each answer of the API server.
    pub fn api_answered(&self, status: u16) {
        let mut rejections = self.rejections();
        match status {
            401 | 403 => {
                let now = Instant::now();
                let first = rejections.map_or(now, |rejections| rejections.first);
                let last = now;
                *rejections = Some(Rejections {
                    first,
                    last,
                    status,
                });
            }
            // Given before the rights are checked, or by something in front of the API server.
            429 | 500.. => {}
            _ => *rejections = None,
        }
    }

    /// What to do where the API server rejects every call. It counts from the first to the last rejected
    /// call: an API server that does not answer rejects none.
    #[must_use]
    pub fn rejection(&self) -> Option<String> {
        let rejections = (*self.rejections())?;
        let time = rejections.last - rejections.first;
        let remedy = match rejections.status {
            401 => "(401): its token or certificate is not valid; renew it, or restart the Pod",
            _ => "(403): apply the RBAC in deploy/",
        };
        let since = rejections.first.elapsed().as_secs();
        (time >= REJECTED).then(|| {
            format!("the API server has rejected every call of the operator for {since} s {remedy}")
        })
    }

    fn rejections(&self) -> std::sync::MutexGuard<'_, Option<Rejections>> {
        let rejections = self.rejections.lock();
        rejections.unwrap_or_else(PoisonError::into_inner)
    }

    /// `Err` says why the process should be restarted.
    pub fn live(&self) -> Result<(), String> {
        let last_beat = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        let silence = self.started.elapsed().saturating_sub(last_beat);
        if silence > STUCK {
            return Err(format!(
                "the control loop has not turned for {} s",
                silence.as_secs()
            ));
        }
        Ok(())
    }

    /// `Err` says what keeps the operator from working.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_listed() {
            // Whatever it is, a restart of the operator does not fix it: it stays live.
            let election = self.election.lock().unwrap_or_else(PoisonError::into_inner);
            let problem = self.rejection().or_else(|| self.watch_outage());
            return problem.or(election.clone()).map_or(Ok(()), Err);
        }
        let problems = self.problems();
        if problems.is_empty() {
            return Err("ImageExportJobs are being listed".to_owned());
        }
        Err(problems.values().cloned().collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_live_until_the_loop_has_not_turned_for_a_minute() {
        let health = Health::default();
        for _ in 0..3 {
            advance(STUCK).await;
            assert_eq!(health.live(), Ok(()));
            health.beat();
        }
        advance(STUCK + Duration::from_secs(1)).await;
        let problem = "the control loop has not turned for 61 s";
        assert_eq!(health.live(), Err(problem.to_owned()));
        health.beat();
        assert_eq!(health.live(), Ok(()));
    }

    /// Answers of the API server, each some seconds after the one before, and whether the operator is
    /// ready after each.
    async fn readiness(answers: &[(u64, u16)]) -> Vec<bool> {
        let health = Health::default();
        health.set_listed();
        let mut ready = Vec::new();
        for (seconds, status) in answers {
            advance(Duration::from_secs(*seconds)).await;
            health.api_answered(*status);
            health.watch_answered(Source(0), 200);
            ready.push(health.ready().is_ok());
        }
        ready
    }

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_not_ready_once_every_call_was_rejected_for_a_minute() {
        let (yes, no) = (true, false);
        for (answers, expected) in [
            (
                &[(0, 403), (30, 403), (29, 403), (1, 401)][..],
                &[yes, yes, yes, no][..],
            ),
            // Ready again with the first call that is accepted, whatever it finds.
            (
                &[(0, 403), (60, 403), (1, 200), (1, 403), (59, 403)],
                &[yes, no, yes, yes, yes],
            ),
            (&[(0, 403), (60, 403), (1, 404)], &[yes, no, yes]),
            (&[(0, 403), (60, 403), (1, 409)], &[yes, no, yes]),
            // The watch of a team is renewed, its Secrets may not be read.
            (
                &[(0, 403), (50, 200), (5, 403), (50, 200), (5, 403)],
                &[yes; 5],
            ),
            // Overload and outages show nothing about the operator's rights.
            (&[(0, 403), (60, 429), (60, 503), (60, 504)], &[yes; 4]),
            (&[(0, 403), (600, 503), (1, 403)], &[yes, yes, no]),
            (&[(0, 503), (600, 500)], &[yes, yes]),
        ] {
            assert_eq!(readiness(answers).await, expected, "{answers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_names_its_time_and_its_remedy() {
        for (status, remedy) in [
            (403, "(403): apply the RBAC in deploy/"),
            (
                401,
                "(401): its token or certificate is not valid; renew it, or restart the Pod",
            ),
        ] {
            let health = Health::default();
            health.set_listed();
            health.api_answered(status);
            advance(REJECTED).await;
            health.api_answered(status);
            advance(Duration::from_secs(9)).await;
            let problem =
                format!("the API server has rejected every call of the operator for 69 s {remedy}");
            assert_eq!(health.rejection().as_ref(), Some(&problem));
            assert_eq!(health.ready(), Err(problem));
            health.beat();
            assert_eq!(health.live(), Ok(()), "a restart gives no rights");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_not_ready_while_a_watch_is_down_for_five_minutes() {
        let health = Health::default();
        let (one, two) = (Source(0), Source(1));
        health.watch_answered(one, 200);
        health.watch_answered(two, 200);
        health.set_listed();
        health.watch_fails(
            one,
            "namespace one: the API server does not answer".to_owned(),
        );
        advance(Duration::from_secs(299)).await;
        // What is no watch is no watch that works, and neither is an error.
        health.api_answered(200);
        for status in [403, 404, 429, 503] {
            health.watch_answered(one, status);
        }
        health.watch_answered(two, 200);
        assert_eq!(health.ready(), Ok(()));
        advance(Duration::from_secs(1)).await;
        let problem = "namespace one: the API server does not answer: changes of objects have not been \
                       seen for 300 s";
        assert_eq!(health.ready(), Err(problem.to_owned()));
        health.beat();
        assert_eq!(health.live(), Ok(()), "a restart does not help");
        health.watch_answered(one, 200);
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn readiness_names_what_is_missing() {
        let health = Health::default();
        assert!(health.live().is_ok());
        assert_eq!(
            health.ready(),
            Err("ImageExportJobs are being listed".to_owned())
        );
        health.watch_fails(Source(0), "all namespaces: apply the CRD".to_owned());
        assert_eq!(
            health.ready(),
            Err("all namespaces: apply the CRD".to_owned())
        );
        health.watch_works(Source(0));
        health.set_listed();
        assert_eq!(health.ready(), Ok(()));
        health.watch_fails(Source(0), "gone".to_owned());
        assert_eq!(
            health.ready(),
            Ok(()),
            "a short outage of the API server leaves the operator ready"
        );
    }
}
