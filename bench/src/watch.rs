//! When an object first shows the success of its job, as anybody who watches it sees it.

use futures::StreamExt;
use image_export_api::ImageExportJob;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Watches until it is dropped.
pub struct Shown {
    times: Arc<Mutex<HashMap<u32, Timestamp>>>,
    task: JoinHandle<()>,
}

impl Shown {
    /// Returns once it sees each change.
    pub async fn watch(jobs: Api<ImageExportJob>) -> anyhow::Result<Self> {
        let times = Arc::<Mutex<HashMap<u32, Timestamp>>>::default();
        let seen = Arc::clone(&times);
        let (sender, ready) = oneshot::channel();
        let task = tokio::spawn(async move {
            let events = watcher(jobs, watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events);
            let mut sender = Some(sender);
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        if let Some(number) = number_of_success(&object) {
                            lock(&seen).entry(number).or_insert_with(Timestamp::now);
                        }
                    }
                    Ok(Event::InitDone) => {
                        sender.take().map(|sender| sender.send(()));
                    }
                    _ => {}
                }
            }
        });
        ready.await?;
        Ok(Self { times, task })
    }

    pub fn count(&self) -> usize {
        lock(&self.times).len()
    }

    /// By the number in the object's name.
    pub fn times(&self) -> HashMap<u32, Timestamp> {
        lock(&self.times).clone()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn number_of_success(object: &ImageExportJob) -> Option<u32> {
    let status = object.status.as_ref()?.status.as_deref()?;
    let (_, number) = object.metadata.name.as_deref()?.rsplit_once('-')?;
    (status == "SUCCESS").then(|| number.parse().ok())?
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
