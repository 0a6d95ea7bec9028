//! The parts of a job. A list of them may be as long as the body, so each part is reduced to what counts of
//! it before the next is read.

use super::{
    documented_state,
    error::{Inner, JobError, Outer},
    image_id,
};
use crate::wire::{
    json::{Members, Object, Objects, Read, Scalar, Value},
    text::Redactor,
};
use image_export_model::JobState;
use serde::de::{MapAccess, SeqAccess};
use std::sync::Arc;

/// What counts of the parts of one list.
///
/// A part that failed, still runs or has an undocumented status yields no id: a missing id is polled for
/// again, a wrong one would stay.
#[derive(Default)]
pub(super) struct Parts {
    /// The first id of a part with the status `SUCCESS` or none.
    pub(super) image_id: Option<Arc<str>>,
    /// Of the first part that failed and has a reason.
    pub(super) with_reason: Option<JobError>,
    /// Of the first part that failed and has a code.
    pub(super) with_code: Option<JobError>,
}

impl Parts {
    /// Reads a list.
    pub(super) fn read<'de, A: MapAccess<'de>>(
        value: Value<'_, A>,
        redactor: &Redactor,
    ) -> Result<Self, A::Error> {
        let mut parts = Self::default();
        value.read(Objects {
            new: || Part::new(redactor),
            each: |part| parts.add(part),
        })?;
        Ok(parts)
    }

    fn add(&mut self, part: Part<'_>) {
        if self.image_id.is_none() && part.status.may_be(&JobState::Success) {
            self.image_id = part.image_id.or(part.entities.image_id);
        }
        if part.status.may_be(&JobState::Fail) {
            let error = JobError::of(part.error, part.entities.error);
            if error.code.is_some() && self.with_code.is_none() {
                self.with_code = Some(error.clone());
            }
            if error.reason.is_some() && self.with_reason.is_none() {
                self.with_reason = Some(error);
            }
        }
    }
}

/// The status of a part.
enum Status {
    /// Then the job's own status decides alone.
    None,
    Known(JobState),
    Other,
}

impl Status {
    fn read(status: Scalar<'_>) -> Self {
        match status {
            Scalar::Null => Self::None,
            Scalar::Text(text) if text.trim().is_empty() => Self::None,
            Scalar::Text(text) => documented_state(text.trim()).map_or(Self::Other, Self::Known),
            _ => Self::Other,
        }
    }

    fn may_be(&self, state: &JobState) -> bool {
        match self {
            Self::None => true,
            Self::Known(known) => known == state,
            Self::Other => false,
        }
    }
}

struct Part<'a> {
    redactor: &'a Redactor,
    status: Status,
    image_id: Option<Arc<str>>,
    error: Outer,
    entities: Entities<'a>,
}

impl<'a> Part<'a> {
    fn new(redactor: &'a Redactor) -> Self {
        Self {
            redactor,
            status: Status::None,
            image_id: None,
            error: Outer::default(),
            entities: Entities::new(redactor),
        }
    }
}

impl<'de> Members<'de> for Part<'_> {
    const NAMES: &'static [&'static str] = &[
        "status",
        "image_id",
        "fail_reason",
        "error_msg",
        "error_code",
        "entities",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let redactor = self.redactor;
        match name {
            "status" => self.status = value.by(Status::read)?,
            "image_id" => self.image_id = value.by(|id| image_id(id.string()?, redactor))?,
            "entities" => {
                self.entities = Entities::new(redactor);
                value.read(Object(&mut self.entities))?;
            }
            _ => self.error.read(name, value, redactor)?,
        }
        Ok(())
    }
}

/// `entities` of a part.
struct Entities<'a> {
    redactor: &'a Redactor,
    image_id: Option<Arc<str>>,
    error: Inner,
}

impl<'a> Entities<'a> {
    fn new(redactor: &'a Redactor) -> Self {
        Self {
            redactor,
            image_id: None,
            error: Inner::default(),
        }
    }
}

impl<'de> Members<'de> for Entities<'_> {
    const NAMES: &'static [&'static str] = &[
        "image_id",
        "fail_reason",
        "error",
        "error_msg",
        "addition_error_msg",
        "error_code",
        "addition_error_code",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let redactor = self.redactor;
        match name {
            "image_id" => self.image_id = value.by(|id| image_id(id.string()?, redactor))?,
            _ => self.error.read(name, value, redactor)?,
        }
        Ok(())
    }
}

/// `__data_images`: an id, several with commas, a part, or a list of ids and parts.
#[derive(Default)]
pub(super) struct DataImages {
    /// The first id that is a text.
    pub(super) image_id: Option<Arc<str>>,
    /// The parts in the list.
    pub(super) items: Parts,
    /// The part that stands in place of the list.
    pub(super) object: Parts,
}

impl DataImages {
    pub(super) fn read<'de, A: MapAccess<'de>>(
        value: Value<'_, A>,
        redactor: &Redactor,
    ) -> Result<Self, A::Error> {
        let mut images = Self::default();
        value.read(DataImage {
            redactor,
            image_id: &mut images.image_id,
            parts: &mut images.object,
            items: Some(&mut images.items),
        })?;
        Ok(images)
    }
}

/// Reads an id, a part, or a list where `items` takes its parts.
struct DataImage<'a> {
    redactor: &'a Redactor,
    image_id: &'a mut Option<Arc<str>>,
    parts: &'a mut Parts,
    items: Option<&'a mut Parts>,
}

impl<'de> Read<'de> for DataImage<'_> {
    type Value = ();

    fn scalar(self, scalar: Scalar<'_>) {
        let ids = scalar.string().unwrap_or_default().split(',');
        let mut ids = ids.filter_map(|id| image_id(id.trim(), self.redactor));
        if self.image_id.is_none() {
            *self.image_id = ids.next();
        }
    }

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        let mut part = Part::new(self.redactor);
        Object(&mut part).object(object)?;
        self.parts.add(part);
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some(items) = self.items else {
            while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        loop {
            let item = DataImage {
                redactor: self.redactor,
                image_id: &mut *self.image_id,
                parts: &mut *items,
                items: None,
            };
            if list
                .next_element_seed(crate::wire::json::As(item))?
                .is_none()
            {
                return Ok(());
            }
        }
    }
}
