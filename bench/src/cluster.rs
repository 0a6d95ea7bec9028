//! The API server with its objects.

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use image_export_api::ImageExportJob;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
};
use serde_json::json;
use std::{path::PathBuf, time::Duration};
use testbed::kubernetes::Cluster;
use tokio::time::sleep;

const NAMESPACE: &str = "bench";
/// Objects that are created at once.
const AT_ONCE: usize = 32;

/// Objects on an API server of their own.
pub struct Objects {
    cluster: Cluster,
    jobs: Api<ImageExportJob>,
    count: u32,
}

impl Objects {
    /// A cluster with everything but the objects.
    pub async fn prepare(cloud: &str, count: u32) -> anyhow::Result<Self> {
        let cluster = Cluster::start()?;
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        cluster.install(deploy.as_ref(), "imageexportjobs.imageexport.dev")?;
        cluster
            .kubectl(["create", "namespace", NAMESPACE])
            .success()?;
        let clouds = format!(
            "clouds: {{otc: {{auth_type: token, auth: {{token: bench}}, image_endpoint_override: \"{cloud}\"}}}}"
        );
        let secret = format!("--from-literal=clouds.yaml={clouds}");
        cluster
            .kubectl([
                "--namespace",
                NAMESPACE,
                "create",
                "secret",
                "generic",
                "otc",
                &secret,
            ])
            .success()?;
        let kubeconfig = Kubeconfig::read_from(cluster.admin_kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let jobs = Api::namespaced(Client::try_from(config)?, NAMESPACE);
        Ok(Self {
            cluster,
            jobs,
            count,
        })
    }

    /// With the rights of `deploy/`.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let name = "image-export-operator";
        self.cluster.kubeconfig_for_service_account(name, name)
    }

    pub async fn create(&self) -> anyhow::Result<()> {
        let create = async |n: u32| {
            let object = serde_json::from_value(json!({
                "apiVersion": "imageexport.dev/v1alpha1",
                "kind": "ImageExportJob",
                "metadata": { "name": format!("job-{n}") },
                "spec": {
                    "projectID": "ac234de25c6741d2b1273da49eea1b9e",
                    "jobID": format!("job-{n}"),
                    "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
                },
            }))?;
            let created: ImageExportJob = self.jobs.create(&PostParams::default(), &object).await?;
            anyhow::Ok(created)
        };
        futures::stream::iter(0..self.count)
            .map(create)
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    pub async fn recreate(&self) -> anyhow::Result<()> {
        let all = (DeleteParams::default(), ListParams::default());
        self.jobs.delete_collection(&all.0, &all.1).await?;
        while !self.names().await?.is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
        self.create().await
    }

    async fn names(&self) -> anyhow::Result<Vec<PartialObjectMeta<ImageExportJob>>> {
        Ok(self.jobs.list_metadata(&ListParams::default()).await?.items)
    }

    /// Waits until each object shows a running job. `check` ends the wait by an error.
    pub async fn all_have_a_status(
        &self,
        check: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let list = ListParams::default();
        loop {
            check()?;
            let objects = self.jobs.list(&list).await.context("the objects")?;
            let has_status = |object: &&ImageExportJob| {
                let status = object.status.as_ref();
                status.is_some_and(|status| status.status.is_some())
            };
            let shown = objects.items.iter().filter(has_status).count();
            if shown == usize::try_from(self.count)? {
                return Ok(());
            }
            // A list costs the API server much, too.
            sleep(Duration::from_millis(500)).await;
        }
    }
}
