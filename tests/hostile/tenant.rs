//! The attacker: a tenant with the rights of `edit` in one namespace, a project and a token of its own.

use crate::harness::{client_of, cluster};
use futures::{StreamExt, stream};
use image_export_api::ImageExportJob;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::Duration;

/// The label by which an operator chooses its objects.
pub const LABEL: &str = "trial";
/// Acts of [`many`] that are under way at once.
const AT_ONCE: usize = 32;

/// The attacker.
#[derive(Clone)]
pub struct Tenant {
    pub namespace: String,
    pub project: String,
    pub token: String,
    pub jobs: Api<ImageExportJob>,
    pub secrets: Api<Secret>,
    trial: String,
}

impl Tenant {
    /// A namespace and a tenant who may edit in it.
    pub async fn new(trial: &str) -> Self {
        let namespace = format!("hostile-{trial}");
        create_namespace(&namespace);
        let kubeconfig = cluster()
            .kubeconfig_for_service_account(&namespace, "tenant")
            .expect("a token for the tenant");
        let client = client_of(&kubeconfig).await;
        Self {
            jobs: Api::namespaced(client.clone(), &namespace),
            secrets: Api::namespaced(client, &namespace),
            project: format!("project-of-{trial}"),
            token: format!("token-of-{namespace}"),
            trial: trial.to_owned(),
            namespace,
        }
    }

    /// An object for the job of the same name, with changes to its spec. Its credentials are the entry `otc` of the
    /// Secret `otc`.
    pub fn object(&self, name: &str, spec: Value) -> ImageExportJob {
        let mut all = json!({ "projectID": self.project });
        extend(&mut all, spec);
        object(&self.trial, name, all)
    }

    /// Creates so many objects.
    pub async fn create_many(&self, count: usize, object: impl Fn(usize) -> ImageExportJob) {
        many(count, |n| {
            let object = object(n);
            async move { self.create(&object).await }
        })
        .await;
    }

    pub async fn create(&self, object: &ImageExportJob) {
        create(&self.jobs, object).await;
    }

    /// Creates or replaces a Secret that has only the key `clouds.yaml`.
    pub async fn put_clouds(&self, secret: &str, clouds: String) {
        put_secret(&self.secrets, secret, &[("clouds.yaml", clouds)]).await;
    }

    /// A merge patch of an object, whatever the API server answers.
    pub async fn try_patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        // An attacker does not mind.
        let _ = self.jobs.patch(name, &PatchParams::default(), &patch).await;
    }
}

/// A namespace, and a `ServiceAccount` `tenant` with the rights of `edit` there. No controller aggregates roles here,
/// so both parts of that role are bound.
pub fn create_namespace(name: &str) {
    let binding = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "namespace": name, "name": role.replace(':', "-") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": "tenant", "namespace": name }],
        })
    };
    let list = json!({
        "apiVersion": "v1", "kind": "List",
        "items": [
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } },
            {
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "namespace": name, "name": "tenant" },
            },
            binding("system:aggregate-to-edit"),
            binding("image-export-operator-edit"),
        ],
    });
    cluster()
        .kubectl(["apply", "--server-side", "-f", "-"])
        .stdin(list.to_string())
        .success()
        .expect("a namespace");
}

/// An object with this label for the job of the same name, with changes to its spec.
pub fn object(label: &str, name: &str, spec: Value) -> ImageExportJob {
    let mut object = json!({
        "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
        "metadata": { "name": name, "labels": { LABEL: label } },
        "spec": {
            "jobID": name, "pollPeriodSeconds": 5,
            "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
        },
    });
    extend(&mut object["spec"], spec);
    serde_json::from_value(object).expect("an object")
}

fn extend(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// The reference to a Secret of this name.
pub fn secret(name: &str) -> Value {
    json!({ "cloudCredentialsRef": { "secretName": name, "cloudName": "otc" } })
}

/// A clouds.yaml with a token, and further fields, each followed by a comma.
pub fn with_token(url: &str, token: &str, fields: &str) -> String {
    format!(
        "clouds: {{otc: {{{fields} auth_type: token, auth: {{token: {token}}}, image_endpoint_override: '{url}'}}}}"
    )
}

/// A clouds.yaml with an access key.
pub fn with_key(url: &str, access_key: &str, secret_key: &str) -> String {
    format!(
        "clouds: {{otc: {{ak: '{access_key}', sk: '{secret_key}', image_endpoint_override: '{url}'}}}}"
    )
}

/// A clouds.yaml with a login, for jobs at `url`.
pub fn with_login(auth_url: &str, url: &str, fields: &str) -> String {
    format!(
        "clouds: {{otc: {{image_endpoint_override: '{url}', auth: {{auth_url: '{auth_url}', {fields}}}}}}}"
    )
}

/// Acts so many times, some at once.
pub async fn many<Act: Future<Output = ()>>(count: usize, act: impl FnMut(usize) -> Act) {
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, act)
        .await;
}

/// Creates or replaces a Secret.
pub async fn put_secret(secrets: &Api<Secret>, name: &str, data: &[(&str, String)]) {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.clone().into_bytes())));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..Secret::default()
    };
    let parameters = PatchParams::apply("a-user").force();
    let patch = Patch::Apply(&secret);
    let result = persist(|| secrets.patch(name, &parameters, &patch)).await;
    result.expect("the API server accepts it");
}

/// Creates an object.
pub async fn create(jobs: &Api<ImageExportJob>, object: &ImageExportJob) {
    let parameters = PostParams::default();
    match persist(|| jobs.create(&parameters, object)).await {
        // An attempt before this one got no reply.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => drop(result.expect("the API server accepts it")),
    }
}

/// Repeats a request that a busy API server puts off.
async fn persist<T, R>(request: impl Fn() -> R) -> kube::Result<T>
where
    R: Future<Output = kube::Result<T>>,
{
    loop {
        match request().await {
            Err(kube::Error::Api(status)) if status.code == 429 || status.code >= 500 => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}
