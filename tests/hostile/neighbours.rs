//! The neighbours: three tenants who do nobody any harm, on the public cloud that all tenants share.

use crate::{
    harness::{client, cluster},
    tenant::{self, object},
};
use futures::future::join_all;
use image_export_api::ImageExportJob;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use serde_json::json;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use testbed::ims::{self, End, Job, JobKey, Simulator};
use tokio::sync::OnceCell;

/// Label of the neighbours' objects; those of an attacker carry the name of the trial.
pub const SHARED: &str = "shared";
/// Running jobs of each neighbour, polled every 5 s by the operator's time.
const STEADY: usize = 4;
/// New objects of each neighbour at a time.
const NEW: usize = 2;

/// One neighbour.
pub struct Neighbour {
    pub namespace: String,
    pub project: String,
}

/// All of them, and their cloud.
pub struct Neighbours {
    pub cloud: Simulator,
    /// When the simulator's clock began.
    pub cloud_started: Instant,
    pub all: Vec<Neighbour>,
}

/// An object that was just created, for a job that has succeeded.
pub struct New {
    pub namespace: String,
    pub name: String,
    pub created: Instant,
    /// The same by the wall clock.
    pub created_at: Timestamp,
}

impl Neighbours {
    /// The same for all trials.
    pub async fn meet() -> &'static Self {
        static NEIGHBOURS: OnceCell<Neighbours> = OnceCell::const_new();
        NEIGHBOURS.get_or_init(Self::settle).await
    }

    async fn settle() -> Self {
        let client = client(cluster()).await;
        let cloud_started = Instant::now();
        let cloud = Simulator::start(ims::Config::default()).expect("a simulator");
        let mut all = Vec::new();
        for n in 0..3 {
            let neighbour = Neighbour {
                namespace: format!("neighbour-{n}"),
                project: format!("project-of-neighbour-{n}"),
            };
            tenant::create_namespace(&neighbour.namespace);
            cloud.add_token(neighbour.token(), Some(&neighbour.project));
            neighbour.create_secret(&client, &cloud, "otc").await;
            for key in neighbour.steady() {
                cloud.put_job(Job::new(&key.project, &key.job).ends(End::Never));
                neighbour.create(&client, &key.job, "otc").await;
            }
            all.push(neighbour);
        }
        Self {
            cloud,
            cloud_started,
            all,
        }
    }

    /// Returns once each running job was polled once more.
    pub async fn polled_again(&self) {
        let steady = self.all.iter().flat_map(Neighbour::steady);
        let polls = steady.map(|key| {
            let polls = self.cloud.polls(&key);
            async move { self.cloud.polled(&key, polls + 1).await }
        });
        join_all(polls).await;
    }

    /// New objects of all neighbours, each with a Secret of its own.
    pub async fn create_new(&self, client: &Client) -> Vec<New> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let new = self.all.iter().flat_map(|neighbour| {
            (0..NEW).map(move |_| async move {
                let name = format!("new-{}", COUNT.fetch_add(1, Ordering::Relaxed));
                self.cloud
                    .put_job(Job::new(&neighbour.project, name.as_str()));
                neighbour.create_secret(client, &self.cloud, &name).await;
                neighbour.create(client, &name, &name).await;
                New {
                    namespace: neighbour.namespace.clone(),
                    name,
                    created: Instant::now(),
                    created_at: Timestamp::now(),
                }
            })
        });
        join_all(new).await
    }
}

impl Neighbour {
    fn token(&self) -> String {
        format!("token-of-{}", self.namespace)
    }

    /// Its running jobs.
    pub fn steady(&self) -> impl Iterator<Item = JobKey> {
        (0..STEADY).map(|n| JobKey::new(&self.project, format!("steady-{n}")))
    }

    async fn create_secret(&self, client: &Client, cloud: &Simulator, name: &str) {
        let clouds = tenant::with_token(&cloud.url(), &self.token(), "");
        let secrets = Api::namespaced(client.clone(), &self.namespace);
        tenant::put_secret(&secrets, name, &[("clouds.yaml", clouds)]).await;
    }

    async fn create(&self, client: &Client, name: &str, secret: &str) {
        let spec = json!({
            "projectID": self.project,
            "cloudCredentialsRef": { "secretName": secret, "cloudName": "otc" },
        });
        self.create_object(client, &object(SHARED, name, spec))
            .await;
    }

    /// Creates an object in its namespace.
    pub async fn create_object(&self, client: &Client, object: &ImageExportJob) {
        let jobs = Api::namespaced(client.clone(), &self.namespace);
        tenant::create(&jobs, object).await;
    }
}
