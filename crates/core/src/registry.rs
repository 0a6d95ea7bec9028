//! All objects: by key, by name, and by the watch that shows them.
//!
//! [`Registry::get_mut`] opens an object, and [`Registry::close`] closes it again: once it was decided about, and at the
//! latest at the end of the input. An object is held as a [`Job`] while it is open or something is under way for it, and
//! otherwise packed, in about a fifth of the memory.

use crate::{
    effects::{ObjectEvent, ObjectKey, Source},
    job::{Job, PollStage},
    keys::{JobKey, NamespaceKey},
    namespaces::Namespaces,
    pack::Words,
    packed::Packed,
};
use hashbrown::HashTable;
use slotmap::SlotMap;
#[cfg(test)]
use std::cell::Cell;
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    ops::Deref,
    sync::Arc,
};

#[derive(Clone, Copy, Debug, Default)]
struct Listing {
    mark: u32,
    is_complete: bool,
}

/// With so many objects at most none is packed: that would save little.
const FEW: usize = 1000;

/// So many objects at most stay as they are while they wait for their turn to be polled, which mostly comes soon.
const LIVE_MAX: usize = 10_000;

/// So many spare boxes are kept.
const SPARE: usize = 64;

/// The objects.
#[derive(Debug)]
pub struct Registry {
    objects: SlotMap<JobKey, Object>,
    namespaces: Namespaces,
    /// Keys by name. The names themselves are in the objects alone.
    names: HashTable<JobKey>,
    hasher: RandomState,
    /// Objects that were opened, those included that were closed since.
    opened: Vec<JobKey>,
    /// Boxes of objects that were packed, for the next that are unpacked: cheaper than to allocate them.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Job>>,
    /// How many objects are not packed.
    live: usize,
    /// [`FEW`], but for tests.
    pub few: usize,
    /// [`LIVE_MAX`], but for tests.
    pub live_max: usize,
    words: Words,
    /// Where objects are packed.
    buffer: Vec<u8>,
    listings: HashMap<Source, Listing>,
    undecodable: BTreeMap<ObjectKey, Undecodable>,
    /// How often an object was looked at, opened, or closed.
    #[cfg(test)]
    pub visits: Cell<u64>,
    /// Checks of each object that is packed that it unpacks to what it was.
    #[cfg(test)]
    pub checks_packing: bool,
}

#[derive(Debug)]
struct Object {
    body: Body,
    namespace: NamespaceKey,
    /// The list of its watch that showed it last.
    mark: u32,
    /// The watch that shows it.
    source: Source,
    is_open: bool,
}

#[derive(Debug)]
enum Body {
    Live(Box<Job>),
    Packed(Packed),
}

impl Object {
    fn name(&self) -> &str {
        match &self.body {
            Body::Live(job) => &job.key.name,
            Body::Packed(packed) => packed.name(),
        }
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.namespace, self.name()))
    }
}

/// An object to look at: as it is held, or unpacked for that.
#[derive(Debug)]
pub enum View<'a> {
    /// As it is held.
    Held(&'a Job),
    /// Unpacked.
    Unpacked(Box<Job>),
}

impl Deref for View<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        match self {
            Self::Held(job) => job,
            Self::Unpacked(job) => job,
        }
    }
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

impl Default for Registry {
    fn default() -> Self {
        Self {
            objects: SlotMap::with_key(),
            namespaces: Namespaces::default(),
            names: HashTable::new(),
            hasher: RandomState::default(),
            opened: Vec::new(),
            spare: Vec::new(),
            live: 0,
            few: FEW,
            live_max: LIVE_MAX,
            words: Words::default(),
            buffer: Vec::new(),
            listings: HashMap::new(),
            undecodable: BTreeMap::new(),
            #[cfg(test)]
            visits: Cell::new(0),
            #[cfg(test)]
            checks_packing: false,
        }
    }
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
        if self.objects.len() > self.few {
            // Those that were closed while there were few.
            for (key, object) in &mut self.objects {
                if matches!(object.body, Body::Live(_)) && !object.is_open {
                    object.is_open = true;
                    self.opened.push(key);
                }
            }
        }
        self.objects
            .iter()
            .filter(|(_, object)| object.source == source && object.mark != mark)
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
    fn mark_of(&mut self, source: Source) -> u32 {
        self.listings.entry(source).or_default().mark
    }

    /// Notes that the object was seen.
    pub fn mark(&mut self, key: JobKey, source: Source) {
        let mark = self.mark_of(source);
        if let Some(object) = self.objects.get_mut(key) {
            object.source = source;
            object.mark = mark;
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

    /// The key of the object of this name.
    #[must_use]
    pub fn key_of(&self, name: &ObjectKey) -> Option<JobKey> {
        let namespace = self.namespaces.key_of(&name.namespace)?;
        let hash = self.hasher.hash_one((namespace, &*name.name));
        let is_named = |key: &JobKey| {
            let object = &self.objects[*key];
            object.namespace == namespace && *object.name() == *name.name
        };
        self.names.find(hash, is_named).copied()
    }

    /// The object, if it is still there. One that is packed is unpacked for that.
    #[must_use]
    pub fn get(&self, key: JobKey) -> Option<View<'_>> {
        let object = self.objects.get(key)?;
        self.count_visit();
        Some(match &object.body {
            Body::Live(job) => View::Held(job),
            Body::Packed(packed) => {
                let job = packed.unpack(&self.words, &self.namespaces[object.namespace]);
                View::Unpacked(Box::new(job))
            }
        })
    }

    /// The object, unless it is packed, as it is while nothing is under way for it.
    #[must_use]
    pub fn get_unpacked(&self, key: JobKey) -> Option<&Job> {
        match &self.objects.get(key)?.body {
            Body::Live(job) => Some(job),
            Body::Packed(_) => None,
        }
    }

    /// The object, if it is open.
    pub fn get_opened(&mut self, key: JobKey) -> Option<&mut Job> {
        match self.objects.get_mut(key)? {
            Object {
                body: Body::Live(job),
                is_open: true,
                ..
            } => Some(job),
            _ => None,
        }
    }

    /// Opens the object, if it is still there.
    pub fn get_mut(&mut self, key: JobKey) -> Option<&mut Job> {
        self.count_visit();
        let object = self.objects.get_mut(key)?;
        if !object.is_open {
            object.is_open = true;
            self.opened.push(key);
            if let Body::Packed(packed) = &object.body {
                let job = packed.unpack(&self.words, &self.namespaces[object.namespace]);
                let job = match self.spare.pop() {
                    Some(mut spare) => {
                        *spare = job;
                        spare
                    }
                    None => Box::new(job),
                };
                object.body = Body::Live(job);
                self.live += 1;
            }
        }
        match &mut object.body {
            Body::Live(job) => Some(job),
            Body::Packed(_) => None,
        }
    }

    /// The next of the objects that were opened. It may be closed already.
    pub fn next_opened(&mut self) -> Option<JobKey> {
        let next = self.opened.pop();
        if next.is_none() {
            self.opened.shrink_to(FEW);
        }
        next
    }

    /// Closes an object: it is packed, unless something is under way for it.
    pub fn close(&mut self, key: JobKey) {
        let are_few = self.objects.len() <= self.few;
        let Some(object) = self.objects.get_mut(key).filter(|object| object.is_open) else {
            return;
        };
        object.is_open = false;
        let Body::Live(job) = &object.body else {
            return;
        };
        let is_next = matches!(job.polling.stage, PollStage::Queued(_));
        if are_few || is_next && self.live <= self.live_max {
            return;
        }
        let Some(packed) = Packed::pack(job, &mut self.words, &mut self.buffer) else {
            return;
        };
        self.live -= 1;
        #[cfg(test)]
        if self.checks_packing {
            let unpacked = packed.unpack(&self.words, &self.namespaces[object.namespace]);
            assert_eq!(format!("{unpacked:?}"), format!("{job:?}"));
        }
        if let Body::Live(job) = std::mem::replace(&mut object.body, Body::Packed(packed))
            && self.spare.len() < SPARE
        {
            self.spare.push(job);
        }
    }

    /// Adds an object that this watch shows, and opens it.
    pub fn insert(&mut self, source: Source, mut job: Job) -> JobKey {
        let namespace = self.namespaces.join(&job.key.namespace);
        job.key.namespace = self.namespaces[namespace].clone();
        let object = Object {
            namespace,
            body: Body::Live(Box::new(job)),
            mark: self.mark_of(source),
            source,
            is_open: true,
        };
        let hash = object.hash(&self.hasher);
        let key = self.objects.insert(object);
        self.live += 1;
        let (objects, hasher) = (&self.objects, &self.hasher);
        let rehash = |key: &JobKey| objects[*key].hash(hasher);
        self.names.insert_unique(hash, key, rehash);
        self.opened.push(key);
        key
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: JobKey) -> Option<Job> {
        let object = self.objects.remove(key)?;
        let hash = object.hash(&self.hasher);
        if let Ok(entry) = self.names.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        let job = match object.body {
            Body::Live(job) => {
                self.live -= 1;
                *job
            }
            Body::Packed(packed) => packed.unpack(&self.words, &self.namespaces[object.namespace]),
        };
        self.namespaces.leave(object.namespace);
        Some(job)
    }

    /// Whether a namespace has objects.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.key_of(name).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// The keys of all, or of those that one watch shows.
    #[must_use]
    pub fn keys(&self, of: Option<Source>) -> Vec<JobKey> {
        #[cfg(test)]
        self.visits
            .update(|visits| visits + self.objects.len() as u64);
        let is_meant = |object: &Object| of.is_none_or(|source| object.source == source);
        let objects = self.objects.iter();
        objects
            .filter(|(_, object)| is_meant(object))
            .map(|(key, _)| key)
            .collect()
    }

    #[cfg(test)]
    fn count_visit(&self) {
        self.visits.update(|visits| visits + 1);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "only tests count")]
    fn count_visit(&self) {}
}

/// For tests.
#[cfg(test)]
impl Registry {
    /// The object of this name.
    pub fn find(&self, name: &ObjectKey) -> Option<(JobKey, View<'_>)> {
        let key = self.key_of(name)?;
        Some((key, self.get(key)?))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (JobKey, View<'_>)> {
        let keys = self.objects.keys();
        keys.filter_map(|key| Some((key, self.get(key)?)))
    }

    /// The bytes of all packed objects.
    pub fn packed_bytes(&self) -> usize {
        let objects = self.objects.values();
        objects
            .map(|object| match &object.body {
                Body::Live(_) => 0,
                Body::Packed(packed) => packed.len(),
            })
            .sum()
    }

    /// Names and sizes of what is held of objects.
    pub fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("objects", self.objects.len()),
            ("namespaces", self.namespaces.len()),
            ("names", self.names.len()),
            ("opened objects", self.opened.len()),
            ("undecodable objects", self.undecodable.len()),
        ]
    }
}
