//! The API server of the [`World`]: versioned objects, an ordered watch, status writes with preconditions.
//! Also the changes that users make: they create, edit and delete objects.

use super::{
    invariants,
    samples::{crd_default, key},
    world::{Due, Fate, SOURCE, World, WriteLog},
};
use crate::{
    Deletion, FetchResult, FetchTicket, Input, ObjectKey, Precondition, StatusWrite, WriteResult,
};
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::types};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

impl World {
    /// A user creates an object.
    pub fn create(&mut self, mut object: ImageExportJob) {
        self.uids += 1;
        self.version += 1;
        object.metadata.uid = Some(format!("uid-{}", self.uids));
        object.metadata.generation = Some(1);
        object.metadata.resource_version = Some(self.version.to_string());
        let created = object.metadata.creation_timestamp.take();
        object.metadata.creation_timestamp = created.or(Some(Time(self.present().wall)));
        object.status.get_or_insert_with(crd_default);
        let name = object.metadata.name.clone().expect("named");
        self.objects.insert(key(&name), object.clone());
        self.notify(&key(&name));
    }

    pub fn create_all<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        for name in names {
            self.create(super::samples::object(name));
        }
    }

    /// A user changes an object. A change of the spec increments the generation.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut ImageExportJob)) {
        self.version += 1;
        let version = self.version.to_string();
        let object = self.objects.get_mut(&key(name)).expect("the object exists");
        let before = object.clone();
        change(object);
        if let Some(status) = &mut object.status {
            (self.prune)(status);
        }
        if object.spec != before.spec {
            object.metadata.generation = before.metadata.generation.map(|g| g + 1);
        }
        if object.status != before.status {
            let uid = object.metadata.uid.as_deref();
            let uid = uid.expect("stored objects have a uid");
            self.invariants.edited(uid);
            self.oracles.edited(uid);
        }
        object.metadata.resource_version = Some(version);
        self.notify(&key(name));
    }

    /// A user edits the status.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut ImageExportJobStatus)) {
        self.change(name, |object| change(object.status.get_or_insert_default()));
    }

    /// A label changes: only the resource version is new.
    pub fn touch(&mut self, name: &str) {
        self.change(name, |_| {});
    }

    pub fn request_poll(&mut self, name: &str, value: &str) {
        let annotation = image_export_api::POLL_REQUEST_ANNOTATION.to_owned();
        self.change(name, |object| {
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(annotation, value.to_owned());
        });
    }

    pub fn delete(&mut self, name: &str) {
        self.version += 1;
        let object = self.objects.remove(&key(name)).expect("the object exists");
        self.undecodable.remove(&key(name));
        if !self.held.watch {
            let uid = object.metadata.uid.expect("stored objects have a uid");
            self.show(None, &key(name), &uid);
        }
    }

    fn notify(&mut self, key: &ObjectKey) {
        let object = self.objects[key].clone();
        if self.held.watch {
            self.open_watch.push(object);
        } else {
            self.show(Some(&object), key, "");
        }
    }

    /// Delivers a version of an object.
    pub fn see(&mut self, object: ImageExportJob) {
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        if self.tracker.state.leading {
            self.invariants.shown_to_leader(self.process, uid);
        }
        let key = key(object.metadata.name.as_deref().unwrap_or_default());
        if self.undecodable.contains(&key) {
            let uid = uid.to_owned();
            let error = "spec: missing".to_owned();
            self.feed(Input::Undecodable {
                source: SOURCE,
                key,
                uid,
                error,
            });
        } else {
            self.feed(Input::Applied(SOURCE, Box::new(object)));
        }
    }

    /// Delivers a complete list.
    pub fn list(&mut self) {
        self.feed(Input::ListStarted(SOURCE));
        for object in self.objects.values().cloned().collect::<Vec<_>>() {
            self.see(object);
        }
        self.feed(Input::Listed(SOURCE));
    }

    pub fn stored(&self, name: &str) -> &ImageExportJob {
        &self.objects[&key(name)]
    }

    pub fn status(&self, name: &str) -> &ImageExportJobStatus {
        self.stored(name)
            .status
            .as_ref()
            .expect("the CRD has a default")
    }

    /// The reason of the `Ready` condition, "" without one.
    pub fn reason(&self, name: &str) -> &str {
        invariants::condition(self.status(name), types::READY).map_or("", |ready| &ready.reason)
    }

    /// Applies a write as the API server does. Returns the reply.
    pub fn land(&mut self, write: &StatusWrite) -> WriteResult {
        let wall = self.present().wall.as_second();
        let Some(object) = self.objects.get_mut(&write.key) else {
            return WriteResult::Gone;
        };
        let fits = match &write.precondition {
            Precondition::ResourceVersion(version) => {
                object.metadata.resource_version.as_deref() == Some(&**version)
            }
            Precondition::Tests {
                uid,
                generation,
                status,
            } => {
                object.metadata.uid.as_deref() == Some(&**uid)
                    && object.metadata.generation == Some(*generation)
                    && object.status.as_ref() == status.as_deref()
            }
        };
        if !fits {
            return WriteResult::Conflict;
        }
        let mut stored = write.status.clone();
        (self.prune)(&mut stored);
        let walls = self.wall_steps.iter().map(|s| wall - self.wall_step + s);
        // What was sent before a sleep may land after it.
        let asleep = self.slept.iter().map(|before| wall - before);
        let walls: Vec<i64> = walls.chain([wall]).chain(asleep).collect();
        let writer = self.process;
        self.invariants
            .write_landed(object, &write.status, &stored, &walls, writer);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.oracles.landed(uid, &write.status);
        object.status = Some(stored.clone());
        self.version += 1;
        object.metadata.resource_version = Some(self.version.to_string());
        self.landed += 1;
        self.landed_last = self.now;
        if self.keep_log {
            self.writes.push(WriteLog {
                at: self.now,
                status: write.status.clone(),
            });
        }
        self.notify(&write.key);
        WriteResult::Written {
            version: self.version.to_string(),
            status: Some(Box::new(stored)),
        }
    }

    /// Applies a deletion as the API server does. Returns the reply.
    pub fn remove(&mut self, deletion: &Deletion) -> WriteResult {
        let wall = self.present().wall;
        let Some(object) = self.objects.get_mut(&deletion.key) else {
            return WriteResult::Gone;
        };
        let meta = &object.metadata;
        let other_version = |version: &str| meta.resource_version.as_deref() != Some(version);
        if meta.uid.as_deref() != Some(&*deletion.uid)
            || deletion.version.as_deref().is_some_and(other_version)
        {
            return WriteResult::Conflict;
        }
        if self.wall_steps.len() == 1 {
            let exact = deletion.version.is_some();
            invariants::check_deletion(object, wall.as_second(), exact);
        }
        let name = deletion.key.name.clone();
        if object.metadata.finalizers.is_none() {
            self.delete(&name);
        } else {
            self.change(&name, |x| {
                if x.metadata.deletion_timestamp.is_none() {
                    x.metadata.deletion_timestamp = Some(Time(wall));
                    // As the API server does.
                    x.metadata.generation = x.metadata.generation.map(|g| g + 1);
                }
            });
        }
        WriteResult::Deleted
    }

    /// Applies a deletion with this fate and sends the reply.
    pub fn remove_with(&mut self, deletion: &Deletion, fate: Fate) {
        let result = match fate {
            Fate::Lands => self.remove(deletion),
            Fate::LandsWithoutReply => {
                self.remove(deletion);
                WriteResult::Unknown
            }
            Fate::Lost | Fate::LandsLate | Fate::Landing => WriteResult::Unknown,
            Fate::Failed => WriteResult::Failed,
            Fate::Throttled => WriteResult::Throttled(None),
            Fate::Rejected => WriteResult::Rejected,
            Fate::Conflict | Fate::LandsThenConflict => WriteResult::Conflict,
        };
        self.after(
            Duration::from_millis(2),
            Due::Reply(deletion.ticket.clone(), result),
        );
    }

    /// Applies a write with this fate and sends the reply.
    pub fn land_with(&mut self, write: StatusWrite, fate: Fate) {
        let result = match fate {
            Fate::Lands => self.land(&write),
            Fate::LandsWithoutReply => {
                self.land(&write);
                WriteResult::Unknown
            }
            Fate::LandsThenConflict => {
                self.land(&write);
                WriteResult::Conflict
            }
            Fate::LandsLate => {
                let late = StatusWrite {
                    ticket: write.ticket.clone(),
                    key: write.key.clone(),
                    precondition: write.precondition.clone(),
                    status: write.status.clone(),
                };
                self.after(
                    Duration::from_secs(7),
                    Due::Land(Box::new(late), Fate::Landing),
                );
                WriteResult::Unknown
            }
            Fate::Landing => {
                self.land(&write);
                return;
            }
            Fate::Lost => WriteResult::Unknown,
            Fate::Failed => WriteResult::Failed,
            Fate::Throttled => WriteResult::Throttled(None),
            Fate::Rejected => WriteResult::Rejected,
            Fate::Conflict => WriteResult::Conflict,
        };
        // The watch event comes 1 ms after landing: half of the replies come before it, half after it.
        let reply = Duration::from_millis(if self.version.is_multiple_of(2) { 0 } else { 2 });
        self.after(reply, Due::Reply(write.ticket, result));
    }

    /// Answers a held write.
    pub fn reply(&mut self, write: &StatusWrite, result: WriteResult) {
        self.invariants.write_ended(write.ticket.sequence);
        self.feed(Input::Wrote(write.ticket.clone(), result));
    }

    /// Answers a read of an object.
    pub fn finish_fetch(&mut self, ticket: FetchTicket, key: &ObjectKey) {
        let found = self.objects.get(key).cloned().map(Box::new);
        if let Some(object) = found.as_ref().filter(|_| self.tracker.state.leading) {
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            self.invariants.shown_to_leader(self.process, uid);
        }
        let result = if self.undecodable.contains(key) {
            FetchResult::Failed
        } else {
            found.map_or(FetchResult::Gone, FetchResult::Found)
        };
        self.feed(Input::Fetched(ticket, result));
    }
}
