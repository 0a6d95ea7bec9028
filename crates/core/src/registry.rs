//! All objects: by key, by name, and by the watch that shows them.

use crate::{
    effects::{ObjectEvent, ObjectKey, Source},
    job::Job,
    keys::JobKey,
};
use slotmap::SlotMap;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

#[derive(Clone, Copy, Debug, Default)]
struct Listing {
    mark: u32,
    is_complete: bool,
}

/// The objects.
#[derive(Debug, Default)]
pub struct Registry {
    jobs: SlotMap<JobKey, Box<Job>>,
    by_name: HashMap<ObjectKey, JobKey>,
    listings: HashMap<Source, Listing>,
    undecodable: BTreeMap<ObjectKey, Undecodable>,
}

/// An object that does not decode: it is reported once.
#[derive(Debug)]
struct Undecodable {
    uid: Arc<str>,
    source: Source,
    mark: u32,
    /// The report, until a leader publishes it.
    report: Option<ObjectEvent>,
}

impl Registry {
    /// A list of this source begins; an unfinished one before it counts for nothing.
    pub fn begin_list(&mut self, source: Source) {
        self.listings.entry(source).or_default().mark += 1;
    }

    /// The list of this source is complete. Returns its objects that the list did not bring.
    pub fn end_list(&mut self, source: Source) -> Vec<JobKey> {
        let listing = self.listings.entry(source).or_default();
        listing.is_complete = true;
        let mark = listing.mark;
        self.undecodable
            .retain(|_, object| object.source != source || object.mark == mark);
        self.iter()
            .filter(|(_, job)| job.source == source && job.mark != mark)
            .map(|(key, _)| key)
            .collect()
    }

    /// Whether this source was ever listed to the end.
    #[must_use]
    pub fn has_listed(&self, source: Source) -> bool {
        self.listings
            .get(&source)
            .is_some_and(|listing| listing.is_complete)
    }

    /// The mark of the current list of a source.
    pub fn mark_of(&mut self, source: Source) -> u32 {
        self.listings.entry(source).or_default().mark
    }

    /// Notes that the object was seen.
    pub fn mark(&mut self, key: JobKey, source: Source) {
        let mark = self.mark_of(source);
        if let Some(job) = self.get_mut(key) {
            job.source = source;
            job.mark = mark;
        }
    }

    /// Notes an object that does not decode.
    pub fn apply_undecodable(&mut self, source: Source, report: ObjectEvent) {
        let mark = self.mark_of(source);
        let (name, uid) = (report.key.clone(), report.uid.clone());
        let known = self.undecodable.get(&name).filter(|o| o.uid == uid);
        let is_reported = known.is_some_and(|known| known.report.is_none());
        let report = (!is_reported).then_some(report);
        let object = Undecodable {
            uid,
            source,
            mark,
            report,
        };
        self.undecodable.insert(name, object);
    }

    /// The report of this object, if it was not taken before.
    pub fn take_report(&mut self, name: &ObjectKey) -> Option<ObjectEvent> {
        self.undecodable.get_mut(name)?.report.take()
    }

    /// All reports that were not taken before.
    pub fn take_reports(&mut self) -> Vec<ObjectEvent> {
        let objects = self.undecodable.values_mut();
        objects.filter_map(|object| object.report.take()).collect()
    }

    /// The object of this name, and of this uid where one is given, decodes again, or is gone.
    pub fn forget_undecodable(&mut self, name: &ObjectKey, uid: Option<&str>) {
        if let Some(object) = self.undecodable.get(name)
            && uid.is_none_or(|uid| *object.uid == *uid)
        {
            self.undecodable.remove(name);
        }
    }

    /// The object of this name.
    #[must_use]
    pub fn find(&self, name: &ObjectKey) -> Option<(JobKey, &Job)> {
        let key = *self.by_name.get(name)?;
        Some((key, self.get(key)?))
    }

    /// The object, if it is still there.
    #[must_use]
    pub fn get(&self, key: JobKey) -> Option<&Job> {
        self.jobs.get(key).map(|job| &**job)
    }

    /// The object, if it is still there.
    pub fn get_mut(&mut self, key: JobKey) -> Option<&mut Job> {
        self.jobs.get_mut(key).map(|job| &mut **job)
    }

    /// Adds the object that `make` makes for its key.
    pub fn insert_with_key(&mut self, make: impl FnOnce(JobKey) -> Job) -> JobKey {
        let key = self.jobs.insert_with_key(|key| Box::new(make(key)));
        self.by_name.insert(self.jobs[key].key.clone(), key);
        key
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: JobKey) -> Option<Box<Job>> {
        let job = self.jobs.remove(key)?;
        self.by_name.remove(&job.key);
        Some(job)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (JobKey, &mut Job)> {
        self.jobs.iter_mut().map(|(key, job)| (key, &mut **job))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Names and sizes of what is held of objects.
    #[cfg(test)]
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("objects", self.jobs.len()),
            ("names", self.by_name.len()),
            ("undecodable objects", self.undecodable.len()),
        ]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (JobKey, &Job)> {
        self.jobs.iter().map(|(key, job)| (key, &**job))
    }
}
