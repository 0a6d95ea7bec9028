//! Every version of the objects of a namespace, as the API server's watch sends it: raw JSON, where
//! `Team::versions` has decoded objects.

use super::condition;
use crate::harness::{Team, eventually};
use futures::StreamExt;
use image_export_api::ImageExportJob;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// A watch that was started before there were objects.
pub struct Record(Arc<Mutex<Vec<Value>>>);

impl Record {
    pub fn of(team: &Team) -> Self {
        let resource = ApiResource::erase::<ImageExportJob>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(team.client.clone(), &team.namespace, &resource);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        tokio::spawn(async move {
            let mut objects = watcher(api, watcher::Config::default())
                .default_backoff()
                .touched_objects()
                .boxed();
            while let Some(object) = objects.next().await {
                let object = object.expect("an undisturbed watch");
                let object = serde_json::to_value(object).expect("plain data");
                into.lock().expect("no panic under the lock").push(object);
            }
        });
        Self(seen)
    }

    /// All versions of one object, oldest first.
    pub fn versions(&self, name: &str) -> Vec<Value> {
        let seen = self.0.lock().expect("no panic under the lock");
        seen.iter()
            .filter(|object| object["metadata"]["name"] == name)
            .cloned()
            .collect()
    }

    /// The versions of each object.
    pub fn all(&self) -> Vec<Vec<Value>> {
        let seen = self.0.lock().expect("no panic under the lock");
        let mut objects: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for object in seen.iter() {
            let name = object["metadata"]["name"].to_string();
            objects.entry(name).or_default().push(object.clone());
        }
        objects.into_values().collect()
    }

    /// Waits until the latest version fits; returns it.
    pub async fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} to {what}"), || {
            self.versions(name).pop().filter(|object| fits(object))
        })
        .await
    }

    /// Waits until the status was written for the present spec and `Ready` gives this reason.
    pub async fn until_reason(&self, name: &str, reason: &str) -> Value {
        self.until(name, &format!("be {reason}"), |object| {
            super::is_acknowledged(object) && condition(object, "Ready")["reason"] == reason
        })
        .await
    }
}
