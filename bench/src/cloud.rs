//! A cloud that costs next to nothing, on a thread of its own, so that what it costs can be told from the rest.

use crate::process;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Name of the cloud's thread.
const THREAD: &str = "cloud";
/// Addresses of the cloud, each a host of its own to the operator's quotas.
pub const HOSTS: usize = 8;
const TYPE: &str = "imsNativeExportImageJob";
/// How long after a 429 a request may come that was sent before it.
const CROSSED: SignedDuration = SignedDuration::from_millis(50);

/// Serves for as long as the process lives.
pub struct Cloud {
    urls: Vec<String>,
    state: Arc<Mutex<State>>,
}

/// What the cloud has seen since its start.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Requests, throttled ones included.
    pub requests: u64,
    pub throttled: u64,
    /// Requests before the time that a 429 named.
    pub early: u64,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// Jobs with a life, by path. All others run.
    jobs: HashMap<String, Job>,
    limit: Option<Limit>,
}

/// The life of a job.
#[derive(Clone)]
pub struct Job {
    pub kind: &'static str,
    /// Initialising until then.
    pub runs: Timestamp,
    pub begins: Timestamp,
    pub ends: Timestamp,
    pub polls: u64,
    /// When its end was answered first.
    pub end_answered: Option<Timestamp>,
}

impl Job {
    /// A job that runs from one time to another.
    pub fn running(begins: Timestamp, ends: Timestamp) -> Self {
        Self {
            kind: TYPE,
            runs: begins,
            begins,
            ends,
            polls: 0,
            end_answered: None,
        }
    }

    fn answer(&mut self, id: &str, now: Timestamp) -> String {
        self.polls += 1;
        let (status, end) = if now >= self.ends {
            self.end_answered.get_or_insert(now);
            ("SUCCESS", Some(self.ends))
        } else if now >= self.runs {
            ("RUNNING", None)
        } else {
            ("INIT", None)
        };
        body(id, status, self.kind, self.begins, end)
    }
}

/// A quota of all requests together.
struct Limit {
    rate: f64,
    tokens: f64,
    refilled: Timestamp,
    retry_after: SignedDuration,
    paused_until: Timestamp,
}

impl Limit {
    fn allows(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        self.refilled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }

    fn is_early(&self, now: Timestamp) -> bool {
        let announced = self.paused_until - self.retry_after;
        now < self.paused_until && now > announced + CROSSED
    }
}

impl Cloud {
    pub fn start() -> anyhow::Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let serve = async move {
            let _ = sender.send(listen(&shared).await);
            std::future::pending::<()>().await;
        };
        thread::Builder::new()
            .name(THREAD.into())
            .spawn(move || runtime.block_on(serve))?;
        let urls = receiver.blocking_recv()??;
        Ok(Self { urls, state })
    }

    pub fn url(&self) -> &str {
        &self.urls[0]
    }

    /// One for each of its [`HOSTS`].
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// The CPU time of its thread.
    pub fn cpu() -> anyhow::Result<Duration> {
        process::own_thread_cpu(THREAD)
    }

    /// Gives jobs a life, by the path of their queries; all others run without end.
    pub fn add_jobs(&self, jobs: impl IntoIterator<Item = (String, Job)>) {
        lock(&self.state).jobs.extend(jobs);
    }

    /// The jobs with a life, which all others join.
    pub fn take_jobs(&self) -> HashMap<String, Job> {
        std::mem::take(&mut lock(&self.state).jobs)
    }

    /// Looks at the jobs with a life.
    pub fn with_jobs<T>(&self, look: impl FnOnce(&HashMap<String, Job>) -> T) -> T {
        look(&lock(&self.state).jobs)
    }

    /// From now on allows so many requests a second, with as many saved up.
    pub fn limit(&self, limit: Option<(f64, Duration)>) {
        let now = Timestamp::now();
        lock(&self.state).limit = limit.map(|(rate, retry_after)| Limit {
            rate,
            tokens: rate,
            refilled: now,
            retry_after: SignedDuration::try_from(retry_after).unwrap_or(SignedDuration::ZERO),
            paused_until: now,
        });
    }
}

/// The path of the query of a job.
pub fn path(project: &str, job: &str) -> String {
    format!("/v1/{project}/jobs/{job}")
}

async fn listen(state: &Arc<Mutex<State>>) -> anyhow::Result<Vec<String>> {
    let mut urls = Vec::new();
    for host in 1..=HOSTS {
        let listener = TcpListener::bind(format!("127.0.0.{host}:0")).await?;
        urls.push(format!("http://{}", listener.local_addr()?));
        let state = Arc::clone(state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
    }
    Ok(urls)
}

/// Answers the requests of a connection. They have no bodies.
async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let answer = lock(&state).answer(path_of(&buffer[..end]));
        buffer.drain(..end + 4);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn path_of(head: &[u8]) -> &str {
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    std::str::from_utf8(path).unwrap_or_default()
}

impl State {
    fn answer(&mut self, path: &str) -> String {
        self.counts.requests += 1;
        let id = path.rsplit('/').next().unwrap_or_default();
        let now = Timestamp::now();
        if let Some(limit) = &mut self.limit {
            self.counts.early += u64::from(limit.is_early(now));
            if !limit.allows(now) {
                limit.paused_until = now + limit.retry_after;
                self.counts.throttled += 1;
                return too_many(limit.retry_after.as_secs());
            }
        }
        let body = match self.jobs.get_mut(path) {
            Some(job) => job.answer(id, now),
            None => body(id, "RUNNING", TYPE, Timestamp::UNIX_EPOCH, None),
        };
        let mut answer = String::with_capacity(body.len() + 80);
        let _ = write!(
            answer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        answer
    }
}

fn too_many(retry_after: i64) -> String {
    let body = r#"{"error":{"code":"APIGW.0308","message":"throttled"}}"#;
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: {retry_after}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn body(id: &str, status: &str, kind: &str, begins: Timestamp, end: Option<Timestamp>) -> String {
    let mut body = String::with_capacity(320);
    let _ = write!(body, r#"{{"status":"{status}","entities":{{"#);
    if end.is_some() {
        let _ = write!(body, r#""image_id":"image-of-{id}""#);
    }
    let _ = write!(
        body,
        r#"}},"job_id":"{id}","job_type":"{kind}","begin_time":"{}","end_time":"#,
        if begins == Timestamp::UNIX_EPOCH {
            // Cheaper than to print one.
            "2024-11-06T06:50:00Z".to_owned()
        } else {
            format!("{begins:.3}")
        }
    );
    let _ = match end {
        Some(end) => write!(body, r#""{end:.3}""#),
        None => write!(body, "null"),
    };
    body.push_str(r#","error_code":null,"fail_reason":null}"#);
    body
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn answer(state: &mut State, path: &str) -> (String, Value) {
        let answer = state.answer(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_job_initialises_runs_and_ends_and_others_run_without_end() {
        let mut state = State::default();
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        for (name, runs, ends) in [
            ("new", now + hour, now + hour),
            ("running", now - hour, now + hour),
            ("ended", now - hour, now - hour),
        ] {
            let mut job = Job::running(now - hour, ends);
            job.runs = runs;
            state.jobs.insert(path("p", name), job);
        }
        for (name, status) in [
            ("new", "INIT"),
            ("running", "RUNNING"),
            ("ended", "SUCCESS"),
            ("other", "RUNNING"),
        ] {
            let (head, body) = answer(&mut state, &path("p", name));
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(
                (&body["status"], &body["job_id"]),
                (&status.into(), &name.into())
            );
            assert_eq!(body["end_time"].is_string(), status == "SUCCESS");
        }
        assert_eq!(state.jobs[&path("p", "ended")].polls, 1);
        assert!(state.jobs[&path("p", "ended")].end_answered.is_some());
        assert_eq!(state.counts.requests, 4);
    }

    #[test]
    fn more_requests_than_the_limit_are_throttled_and_those_before_retry_after_counted() {
        let cloud = Cloud {
            urls: Vec::new(),
            state: Arc::default(),
        };
        cloud.limit(Some((2.0, Duration::from_secs(5))));
        let mut state = lock(&cloud.state);
        let codes: Vec<_> = (0..3).map(|_| answer(&mut state, "/").0).collect();
        assert!(codes[1].starts_with("HTTP/1.1 200 "), "{codes:?}");
        assert!(
            codes[2].contains(" 429 ") && codes[2].contains("Retry-After: 5"),
            "{codes:?}"
        );
        assert_eq!((state.counts.throttled, state.counts.early), (1, 0));
        state.limit.as_mut().unwrap().paused_until -= SignedDuration::from_secs(1);
        let _ = state.answer("/");
        assert_eq!(state.counts.early, 1);
    }
}
