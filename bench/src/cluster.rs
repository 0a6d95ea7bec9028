//! The API server with its objects.

use crate::server::{self, Server};
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use image_export_api::ImageExportJob;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use testbed::kubernetes::Cluster;
use tokio::time::sleep;

pub const NAMESPACE: &str = "bench";
/// Service account of the peers.
const PEER: &str = "peer";
/// Objects that are created at once.
const AT_ONCE: usize = 32;

/// Objects of a namespace, named `job-0` and so on, spread over projects and hosts of the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub namespace: &'static str,
    pub count: u32,
    pub projects: u32,
    pub hosts: u32,
}

impl Layout {
    /// Objects of many projects, so that no quota of the operator binds.
    pub fn many_projects(count: u32) -> Self {
        Self {
            namespace: NAMESPACE,
            count,
            projects: 50,
            hosts: 1,
        }
    }

    /// The path of the query of an object's job.
    pub fn path(self, n: u32) -> String {
        crate::cloud::path(&self.project(n), &name(n))
    }

    fn project(self, n: u32) -> String {
        format!("{}-{}", self.namespace, n % self.projects)
    }
}

fn name(n: u32) -> String {
    format!("job-{n}")
}

/// Objects on an API server of their own.
pub struct Objects {
    cluster: Cluster,
    client: Client,
    layout: Layout,
}

impl Objects {
    /// A cluster with everything but the objects.
    pub async fn prepare(clouds: &[String]) -> anyhow::Result<Self> {
        let cluster = Cluster::start()?;
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        cluster.install(deploy.as_ref(), "imageexportjobs.imageexport.dev")?;
        let kubeconfig = Kubeconfig::read_from(cluster.admin_kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let objects = Self {
            cluster,
            client: Client::try_from(config)?,
            layout: Layout::many_projects(0),
        };
        objects.add_namespace(NAMESPACE, clouds)?;
        let kubectl = |args: &[&str]| objects.cluster.kubectl(args).success();
        kubectl(&["create", "serviceaccount", PEER, "--namespace", NAMESPACE])?;
        let subject = format!("--serviceaccount={NAMESPACE}:{PEER}");
        let role = "--clusterrole=cluster-admin";
        kubectl(&["create", "clusterrolebinding", PEER, role, &subject])?;
        Ok(objects)
    }

    /// A namespace with credentials for each of the cloud's hosts.
    pub fn add_namespace(&self, namespace: &str, clouds: &[String]) -> anyhow::Result<()> {
        let kubectl = |args: &[&str]| self.cluster.kubectl(args).success();
        kubectl(&["create", "namespace", namespace])?;
        let entries: serde_json::Map<_, _> = (0..)
            .zip(clouds)
            .map(|(n, url)| {
                let auth = json!({ "token": "bench" });
                let entry =
                    json!({ "auth_type": "token", "auth": auth, "image_endpoint_override": url });
                (cloud_name(n), entry)
            })
            .collect();
        let clouds = format!(
            "--from-literal=clouds.yaml={}",
            json!({ "clouds": entries })
        );
        let secret = [
            "create",
            "secret",
            "generic",
            "otc",
            "--namespace",
            namespace,
        ];
        kubectl(&[&secret[..], &[&clouds]].concat())?;
        Ok(())
    }

    /// With the rights of `deploy/`.
    pub fn operator_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let name = "image-export-operator";
        self.cluster.kubeconfig_for_service_account(name, name)
    }

    /// With all rights, but a service account all the same: an administrator's requests cost the API server less, as it
    /// neither looks at their rights nor has them queue.
    pub fn peer_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.cluster.kubeconfig_for_service_account(NAMESPACE, PEER)
    }

    /// What the API server has done since its start.
    pub async fn server(&self) -> anyhow::Result<Server> {
        server::read(&self.client).await
    }

    /// Makes these the objects; those that exist stay as they are.
    pub async fn ensure(&mut self, layout: Layout) -> anyhow::Result<()> {
        let count = self.layout.count;
        let same = Layout { count, ..layout } == self.layout;
        if !same || count > layout.count {
            return self.recreate(layout).await;
        }
        self.layout = layout;
        self.create(layout, count..layout.count).await
    }

    /// Makes these the objects, all of them new.
    pub async fn recreate(&mut self, layout: Layout) -> anyhow::Result<()> {
        self.clear(NAMESPACE).await?;
        self.layout = layout;
        self.create(layout, 0..layout.count).await
    }

    /// Deletes all objects of a namespace.
    pub async fn clear(&mut self, namespace: &str) -> anyhow::Result<()> {
        if namespace == NAMESPACE {
            self.layout.count = 0;
        }
        let jobs = self.jobs(namespace);
        let started = Instant::now();
        loop {
            let objects = jobs.list_metadata(&ListParams::default()).await?.items;
            if objects.is_empty() {
                return Ok(());
            }
            ensure!(started.elapsed() < Duration::from_mins(20), "objects stay");
            // Those that kopf marks stay until somebody takes its mark away.
            let marked = objects.into_iter().filter_map(|object| {
                let finalizers = object.metadata.finalizers.unwrap_or_default();
                (!finalizers.is_empty()).then_some(object.metadata.name?)
            });
            let free = async |name: String| {
                let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                jobs.patch(&name, &PatchParams::default(), &patch).await
            };
            futures::stream::iter(marked)
                .map(free)
                .buffer_unordered(AT_ONCE)
                .for_each(async |_| ())
                .await;
            let all = (DeleteParams::default(), ListParams::default());
            // A time-out of a large collection has deleted some.
            let _ = jobs.delete_collection(&all.0, &all.1).await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates these objects of a layout.
    pub async fn create(
        &self,
        layout: Layout,
        numbers: impl IntoIterator<Item = u32>,
    ) -> anyhow::Result<()> {
        let jobs = self.jobs(layout.namespace);
        let create = async |n: u32| {
            let object = serde_json::from_value(json!({
                "apiVersion": "imageexport.dev/v1alpha1",
                "kind": "ImageExportJob",
                "metadata": { "name": name(n) },
                "spec": {
                    "projectID": layout.project(n),
                    "jobID": name(n),
                    "cloudCredentialsRef": { "secretName": "otc", "cloudName": cloud_name(n % layout.hosts) },
                },
            }))?;
            let created: ImageExportJob = jobs.create(&PostParams::default(), &object).await?;
            anyhow::Ok(created)
        };
        futures::stream::iter(numbers)
            .map(create)
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    /// How many objects show a status of their job.
    pub async fn with_a_status(&self) -> anyhow::Result<u32> {
        let mut page = ListParams::default().limit(500);
        let mut found = 0;
        loop {
            let objects = self.jobs(NAMESPACE).list(&page).await;
            let objects = objects.context("the objects")?;
            let has_status = |object: &&ImageExportJob| {
                let status = object.status.as_ref();
                status.is_some_and(|status| status.status.is_some())
            };
            found += u32::try_from(objects.items.iter().filter(has_status).count())?;
            match objects.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => page = page.continue_token(&next),
                None => return Ok(found),
            }
        }
    }

    pub fn jobs(&self, namespace: &str) -> Api<ImageExportJob> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn cloud_name(n: u32) -> String {
    format!("cloud-{n}")
}
