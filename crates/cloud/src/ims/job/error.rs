//! Why a job failed: a reason and a code, which a job, a part of one and the `entities` of either may hold.

use super::{MAX_ERROR_CODE_BYTES, MAX_FAIL_REASON_BYTES};
use crate::wire::{
    json::{Members, Object, Read, Scalar, Text, Value},
    text::Redactor,
};
use serde::de::MapAccess;
use std::sync::Arc;

/// Why a job or a part of it failed, as far as that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct JobError {
    pub(super) reason: Option<Arc<str>>,
    pub(super) code: Option<Arc<str>>,
}

impl JobError {
    /// The first reason and the first code in a job or a part, and in its `entities`.
    pub(super) fn of(outer: Outer, inner: Inner) -> Self {
        Self {
            reason: outer
                .fail_reason
                .or(outer.error_msg)
                .or(inner.own.fail_reason)
                .or(inner.error.reason)
                .or(inner.own.error_msg)
                .or(inner.addition_error_msg),
            code: outer
                .error_code
                .or(inner.own.error_code)
                .or(inner.error.code)
                .or(inner.addition_error_code),
        }
    }

    /// What it lacks comes from another.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            reason: self.reason.or(other.reason),
            code: self.code.or(other.code),
        }
    }

    pub(super) fn or_code(self, code: Option<Arc<str>>) -> Self {
        Self {
            code: self.code.or(code),
            ..self
        }
    }
}

/// The members of a job, of a part, and of the `entities` of either.
#[derive(Default)]
pub(super) struct Outer {
    fail_reason: Option<Arc<str>>,
    error_msg: Option<Arc<str>>,
    error_code: Option<Arc<str>>,
}

impl Outer {
    pub(super) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: Value<'_, A>,
        redactor: &Redactor,
    ) -> Result<(), A::Error> {
        match name {
            "fail_reason" => self.fail_reason = value.read(reason(redactor))?,
            "error_msg" => self.error_msg = value.read(reason(redactor))?,
            _ => self.error_code = value.read(code(redactor))?,
        }
        Ok(())
    }
}

/// What `entities` has besides.
#[derive(Default)]
pub(super) struct Inner {
    own: Outer,
    error: JobError,
    addition_error_msg: Option<Arc<str>>,
    addition_error_code: Option<Arc<str>>,
}

impl Inner {
    pub(super) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: Value<'_, A>,
        redactor: &Redactor,
    ) -> Result<(), A::Error> {
        match name {
            "error" => self.error = value.read(ErrorValue(redactor))?,
            "addition_error_msg" => self.addition_error_msg = value.read(reason(redactor))?,
            "addition_error_code" => self.addition_error_code = value.read(code(redactor))?,
            _ => self.own.read(name, value, redactor)?,
        }
        Ok(())
    }
}

/// Reads a reason.
fn reason(redactor: &Redactor) -> Text<impl Fn(&str) -> Option<Arc<str>>> {
    Text(|raw: &str| shown(raw, MAX_FAIL_REASON_BYTES, redactor))
}

/// Reads a code.
pub(super) fn code(redactor: &Redactor) -> Text<impl Fn(&str) -> Option<Arc<str>>> {
    Text(|raw: &str| shown(raw, MAX_ERROR_CODE_BYTES, redactor))
}

/// The text that is left once it is cleaned.
fn shown(raw: &str, max_bytes: usize, redactor: &Redactor) -> Option<Arc<str>> {
    // As some write what is absent.
    let is_absent = |word: &&str| raw.trim().eq_ignore_ascii_case(word);
    if ["null", "none", "0"].iter().any(is_absent) {
        return None;
    }
    redactor.clean_bytes(raw, max_bytes).map(Arc::from)
}

/// Reads `error`: a reason, or an object with a `message` and a `code`.
struct ErrorValue<'a>(&'a Redactor);

impl<'de> Read<'de> for ErrorValue<'_> {
    type Value = JobError;

    fn scalar(self, scalar: Scalar<'_>) -> JobError {
        JobError {
            reason: reason(self.0).scalar(scalar),
            code: None,
        }
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<JobError, A::Error> {
        let mut error = ErrorObject {
            redactor: self.0,
            error: JobError::default(),
        };
        Object(&mut error).object(object)?;
        Ok(error.error)
    }
}

struct ErrorObject<'a> {
    redactor: &'a Redactor,
    error: JobError,
}

impl<'de> Members<'de> for ErrorObject<'_> {
    const NAMES: &'static [&'static str] = &["message", "code"];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let redactor = self.redactor;
        match name {
            "message" => {
                let reason = |raw: &str| shown(raw, MAX_FAIL_REASON_BYTES, redactor);
                self.error.reason = value.by(|message| reason(message.string()?))?;
            }
            _ => self.error.code = value.read(code(redactor))?,
        }
        Ok(())
    }
}
