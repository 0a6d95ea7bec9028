//! What goes back on the wire: one HTTP answer, and the ways in which it can go wrong on its way.
//!
//! The simulator's own errors and the scripted ones are the same type, so both look alike to a
//! client. Named faults are in [`super::preset`].

use super::{Gate, line::Takeover};
use anyhow::{Context, ensure};
use axum::{
    body::{Body as HttpBody, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures::stream;
use serde::Serialize;
use std::{convert::Infallible, io, time::Duration};

/// The text of a body that is replaced by the id of the requested job.
const JOB_ID: &str = "{job_id}";

/// The text of a body that is replaced by the caller's own token.
const TOKEN: &str = "{token}";

/// How long the part before a cut gets to reach the client, so that it is the body that breaks and
/// not the whole answer.
const CUT_GRACE: Duration = Duration::from_millis(50);

/// One scripted answer: any status, headers and body, perhaps late, held, cut or never sent.
#[derive(Clone, Debug)]
pub struct Answer {
    reply: Reply,
    delay: Duration,
    gate: Option<Gate>,
}

#[derive(Clone, Debug)]
enum Reply {
    Pass,
    Hang,
    Http(Box<Http>),
    /// Not HTTP: these bytes, the pause before each, then the end of the connection.
    Raw(Bytes, Option<Duration>),
}

/// The parts of the request that an answer may contain.
pub(super) struct RequestFacts {
    pub(super) job_id: String,
    pub(super) token: String,
    pub(super) takeover: Option<Takeover>,
}

#[derive(Clone, Debug)]
struct Http {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

#[derive(Clone, Debug)]
struct Body {
    bytes: Bytes,
    pace: Pace,
    /// Whether [`JOB_ID`] and [`TOKEN`] are filled in.
    template: bool,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    AtOnce,
    /// The length of the whole body is announced, so many bytes are sent, the connection ends.
    CutAfter(usize),
    /// One byte after each of these.
    Drip(Duration),
    /// The bytes so many times, the length of all announced.
    Times(u64),
    /// The bytes again and again.
    Endless,
}

impl Answer {
    fn http(status: StatusCode, headers: HeaderMap, bytes: Bytes) -> Self {
        Self {
            reply: Reply::Http(Box::new(Http {
                status,
                headers,
                body: Body {
                    bytes,
                    pace: Pace::AtOnce,
                    template: false,
                },
            })),
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// An answer without headers and body. Panics unless `status` is 200 to 999.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::try_status(status).expect("the status of a scripted answer")
    }

    /// Like [`status`](Self::status); fails where that panics.
    pub fn try_status(status: u16) -> anyhow::Result<Self> {
        // 1xx are no final answers: the server library does not send them as one.
        ensure!(
            (200..=999).contains(&status),
            "status {status} is not within 200 to 999"
        );
        let status = StatusCode::from_u16(status)?;
        Ok(Self::http(status, HeaderMap::new(), Bytes::new()))
    }

    /// An answer with a JSON body, in which `{job_id}` stands for the id of the requested job and
    /// `{token}` for the caller's own token.
    #[must_use]
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self::status(status)
            .header("Content-Type", "application/json;charset=UTF-8")
            .body(body.into())
            .change_body(|body| body.template = true)
    }

    /// An error of IMS itself: `{"error":{"message":…,"code":"IMG.…"}}`.
    #[must_use]
    pub fn ims_error(status: u16, code: &str, message: &str) -> Self {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            code: &'a str,
        }
        let error = Inner { message, code };
        Self::json(status, text(&Shape { error }))
    }

    /// An error of the API gateway: `{"error_msg":…,"error_code":"APIGW.…","request_id":…}`.
    #[must_use]
    pub fn gateway_error(status: u16, code: &str, message: &str) -> Self {
        #[derive(Serialize)]
        struct Shape<'a> {
            error_msg: &'a str,
            error_code: &'a str,
            request_id: &'a str,
        }
        Self::json(
            status,
            text(&Shape {
                error_msg: message,
                error_code: code,
                // As published; the id of the request itself is in the header X-Request-Id.
                request_id: "c50619de20b0e70590f57a99dbed044f",
            }),
        )
    }

    /// An error of the identity service: `{"error":{"message":…,"code":401,"title":…}}`.
    #[must_use]
    pub fn keystone_error(status: u16, title: &str, message: &str) -> Self {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            code: u16,
            title: &'a str,
        }
        let error = Inner {
            message,
            code: status,
            title,
        };
        Self::json(status, text(&Shape { error }))
    }

    /// No interference: what the simulator would have answered anyway. Fills a place in a queue, and
    /// makes an undisturbed answer late with [`after`](Self::after) or [`held_by`](Self::held_by).
    #[must_use]
    pub fn pass() -> Self {
        Self {
            reply: Reply::Pass,
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// Accepts the request and never answers.
    #[must_use]
    pub fn hang() -> Self {
        Self {
            reply: Reply::Hang,
            ..Self::pass()
        }
    }

    /// Sends these bytes where an HTTP answer belongs, and closes the connection. `{job_id}` and
    /// `{token}` are filled in where the bytes are text. Logged as 200.
    #[must_use]
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self {
            reply: Reply::Raw(bytes.into(), None),
            ..Self::pass()
        }
    }

    /// Adds a header. Panics if HTTP does not allow it. Without effect on `pass`, `hang` and `raw`.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.try_header(name, value)
            .expect("a header of a scripted answer")
    }

    /// Like [`header`](Self::header); fails where that panics.
    pub fn try_header(mut self, name: &str, value: &str) -> anyhow::Result<Self> {
        if let Reply::Http(http) = &mut self.reply {
            http.headers.append(
                HeaderName::try_from(name).with_context(|| format!("header name {name:?}"))?,
                HeaderValue::try_from(value).with_context(|| format!("value of header {name}"))?,
            );
        }
        Ok(self)
    }

    /// Sets the body, byte for byte. Without effect on `pass`, `hang` and `raw`.
    #[must_use]
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.change_body(|body| {
            body.bytes = bytes;
            body.template = false;
        })
    }

    /// Announces the whole body, sends the first `bytes` of it and closes the connection.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        self.change_body(|body| body.pace = Pace::CutAfter(bytes))
    }

    /// Sends the body, or all that is raw, byte by byte, each one `every` after the one before.
    #[must_use]
    pub fn drip(mut self, every: Duration) -> Self {
        if let Reply::Raw(_, pause) = &mut self.reply {
            *pause = Some(every);
        }
        self.change_body(|body| body.pace = Pace::Drip(every))
    }

    /// Sends the body so many times, and announces the length of all that.
    #[must_use]
    pub fn repeated(self, times: u64) -> Self {
        self.change_body(|body| body.pace = Pace::Times(times))
    }

    /// Sends the body again and again, without an end.
    #[must_use]
    pub fn endless(self) -> Self {
        self.change_body(|body| body.pace = Pace::Endless)
    }

    /// Answers so much later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Holds the answer until the gate opens.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn change_body(mut self, change: impl FnOnce(&mut Body)) -> Self {
        if let Reply::Http(http) = &mut self.reply {
            change(&mut http.body);
        }
        self
    }

    /// Waits as scripted and builds the response; `None` for [`pass`](Self::pass).
    pub(super) async fn play(&self, facts: &RequestFacts) -> Option<Response> {
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match &self.reply {
            Reply::Pass => None,
            Reply::Hang => std::future::pending().await,
            Reply::Http(http) => {
                let mut response = http.body.response(facts);
                *response.status_mut() = http.status;
                response.headers_mut().extend(http.headers.clone());
                Some(response)
            }
            Reply::Raw(bytes, every) => {
                if let Some(takeover) = &facts.takeover {
                    takeover.send(facts.fill_in(bytes), *every);
                }
                // Makes the server write, and so the bytes go out.
                Some(Response::new(HttpBody::empty()))
            }
        }
    }
}

impl RequestFacts {
    fn fill_in(&self, bytes: &Bytes) -> Bytes {
        std::str::from_utf8(bytes).map_or_else(
            |_| bytes.clone(),
            |text| {
                let filled = text.replace(JOB_ID, &self.job_id);
                Bytes::from(filled.replace(TOKEN, &self.token))
            },
        )
    }
}

impl Body {
    fn response(&self, facts: &RequestFacts) -> Response {
        let bytes = if self.template {
            facts.fill_in(&self.bytes)
        } else {
            self.bytes.clone()
        };
        match self.pace {
            Pace::AtOnce => Response::new(HttpBody::from(bytes)),
            Pace::CutAfter(kept) => {
                let announced = bytes.len();
                let parts = [Some(bytes.slice(..kept.min(announced))), None];
                let cut = stream::unfold(parts.into_iter(), async |mut parts| {
                    let part = if let Some(part) = parts.next()? {
                        Ok(part)
                    } else {
                        tokio::time::sleep(CUT_GRACE).await;
                        Err(io::Error::other("cut as scripted"))
                    };
                    Some((part, parts))
                });
                let mut response = Response::new(HttpBody::from_stream(cut));
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(announced));
                response
            }
            Pace::Drip(every) => {
                let drops = stream::unfold(bytes, move |mut rest| async move {
                    if rest.is_empty() {
                        return None;
                    }
                    tokio::time::sleep(every).await;
                    Some((Ok::<_, Infallible>(rest.split_to(1)), rest))
                });
                Response::new(HttpBody::from_stream(drops))
            }
            Pace::Times(times) => {
                let announced = times.saturating_mul(bytes.len() as u64);
                let parts = usize::try_from(times).unwrap_or(usize::MAX);
                let parts = std::iter::repeat_n(Ok::<_, Infallible>(bytes), parts);
                let mut response = Response::new(HttpBody::from_stream(stream::iter(parts)));
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(announced));
                response
            }
            Pace::Endless => Response::new(HttpBody::from_stream(stream::repeat_with(move || {
                Ok::<_, Infallible>(bytes.clone())
            }))),
        }
    }
}

fn text(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("strings and numbers always serialise")
}
