//! Operations on a Keystone, as its administrator unless noted otherwise.

use super::Keystone;
use crate::loopback;
use anyhow::{Context, anyhow};
use reqwest::{Client, Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const TIMEOUT: Duration = Duration::from_mins(5);

/// Given by the bootstrap; opens nothing by itself.
const ROLE: &str = "member";

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct User {
    /// Id.
    pub id: String,
    /// Name, unique within the domain.
    pub name: String,
    /// Name of the domain.
    pub domain: String,
    /// The password.
    pub password: SecretString,
}

/// An application credential: a login of its own, for one project.
#[derive(Clone, Debug)]
pub struct ApplicationCredential {
    /// Id, enough to log in with.
    pub id: String,
    /// Name, unique for its user, who has to be named with it.
    pub name: String,
    /// The secret.
    pub secret: SecretString,
}

/// What Keystone calls EC2 credentials, and the cloud AK/SK.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The access key (AK), which names the pair.
    pub access: String,
    /// The secret key (SK), which signs.
    pub secret: SecretString,
}

impl Keystone {
    /// Adds a project and returns its id. A domain of that name is added if there is none.
    pub async fn create_project(&self, name: &str, domain: &str) -> anyhow::Result<String> {
        let admin = self.api.admin().await?;
        let domain = admin.domain(domain).await?;
        let project = json!({ "project": { "name": name, "domain_id": domain } });
        let created = admin.send(Method::POST, "/projects", Some(project)).await?;
        text(&created, "/project/id")
    }

    /// Adds a user who may do in these projects (ids) what members may. A domain of that name is
    /// added if there is none.
    pub async fn create_user(
        &self,
        name: &str,
        domain: &str,
        password: impl Into<SecretString>,
        projects: &[&str],
    ) -> anyhow::Result<User> {
        let password = password.into();
        let admin = self.api.admin().await?;
        let domain_id = admin.domain(domain).await?;
        let user = json!({ "user": {
            "name": name,
            "domain_id": domain_id,
            "password": password.expose_secret(),
        } });
        let created = admin.send(Method::POST, "/users", Some(user)).await?;
        let id = text(&created, "/user/id")?;
        let roles = format!("/roles?name={ROLE}");
        let role = text(&admin.send(Method::GET, &roles, None).await?, "/roles/0/id")?;
        for project in projects {
            let grant = format!("/projects/{project}/users/{id}/roles/{role}");
            admin.send(Method::PUT, &grant, None).await?;
        }
        Ok(User {
            id,
            name: name.to_owned(),
            domain: domain.to_owned(),
            password,
        })
    }

    /// Gives the user another password and returns the user with it. Tokens issued before are dead.
    pub async fn change_password(
        &self,
        user: &User,
        password: impl Into<SecretString>,
    ) -> anyhow::Result<User> {
        let password = password.into();
        let change = json!({ "password": password.expose_secret() });
        self.change_user(user, change).await?;
        Ok(User {
            password,
            ..user.clone()
        })
    }

    /// Disables the user: no login any more, and tokens issued before are dead.
    pub async fn disable_user(&self, user: &User) -> anyhow::Result<()> {
        self.change_user(user, json!({ "enabled": false })).await
    }

    /// Enables the user again.
    pub async fn enable_user(&self, user: &User) -> anyhow::Result<()> {
        self.change_user(user, json!({ "enabled": true })).await
    }

    /// Names the public endpoint of the service `image` in the catalog of tokens issued from now on,
    /// instead of the one named before.
    pub async fn set_image_endpoint(&self, url: &str) -> anyhow::Result<()> {
        let admin = self.api.admin().await?;
        let known = admin
            .send(Method::GET, "/services?type=image", None)
            .await?;
        let service = if let Ok(id) = text(&known, "/services/0/id") {
            id
        } else {
            let service = json!({ "service": { "type": "image", "name": "glance" } });
            let created = admin.send(Method::POST, "/services", Some(service)).await?;
            text(&created, "/service/id")?
        };
        let query = format!("/endpoints?service_id={service}&interface=public");
        let known = admin.send(Method::GET, &query, None).await?;
        let endpoint = json!({ "endpoint": {
            "service_id": service,
            "interface": "public",
            "region_id": self.region,
            "url": url,
        } });
        if let Ok(id) = text(&known, "/endpoints/0/id") {
            let path = format!("/endpoints/{id}");
            admin.send(Method::PATCH, &path, Some(endpoint)).await?;
        } else {
            admin
                .send(Method::POST, "/endpoints", Some(endpoint))
                .await?;
        }
        Ok(())
    }

    /// Logs in as the user, for the project with this id, and returns the token.
    pub async fn issue_token(&self, user: &User, project: &str) -> anyhow::Result<String> {
        Ok(self.api.log_in_as(user, project).await?.token)
    }

    /// Revokes one token.
    pub async fn revoke_token(&self, token: &str) -> anyhow::Result<()> {
        let admin = self.api.admin().await?;
        let request = admin
            .request(Method::DELETE, "/auth/tokens")
            .header("X-Subject-Token", token);
        accepted(request.send().await?).await?;
        Ok(())
    }

    /// Makes an application credential as the user, for the project with this id.
    pub async fn create_application_credential(
        &self,
        user: &User,
        project: &str,
        name: &str,
    ) -> anyhow::Result<ApplicationCredential> {
        let session = self.api.log_in_as(user, project).await?;
        let path = format!("/users/{}/application_credentials", user.id);
        let wanted = json!({ "application_credential": { "name": name } });
        let created = session.send(Method::POST, &path, Some(wanted)).await?;
        Ok(ApplicationCredential {
            id: text(&created, "/application_credential/id")?,
            name: name.to_owned(),
            secret: text(&created, "/application_credential/secret")?.into(),
        })
    }

    /// Makes an access key for the user and the project with this id.
    pub async fn create_access_key(&self, user: &User, project: &str) -> anyhow::Result<AccessKey> {
        let admin = self.api.admin().await?;
        let path = format!("/users/{}/credentials/OS-EC2", user.id);
        let wanted = json!({ "tenant_id": project });
        let created = admin.send(Method::POST, &path, Some(wanted)).await?;
        Ok(AccessKey {
            access: text(&created, "/credential/access")?,
            secret: text(&created, "/credential/secret")?.into(),
        })
    }

    /// Revocations count in whole seconds: a token issued within the second of the change would be
    /// taken for one issued before it.
    async fn change_user(&self, user: &User, change: Value) -> anyhow::Result<()> {
        let admin = self.api.admin().await?;
        let path = format!("/users/{}", user.id);
        let body = json!({ "user": change });
        admin.send(Method::PATCH, &path, Some(body)).await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let next = Duration::from_secs(now.as_secs() + 1);
        tokio::time::sleep(next.saturating_sub(now)).await;
        Ok(())
    }
}

/// Keystone's URL, and how to become its administrator.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: String,
    admin_password: SecretString,
}

/// A token and where it is good.
struct Session<'a> {
    api: &'a Api,
    token: String,
}

impl Api {
    /// `url` ends in `/v3`.
    pub(super) fn new(url: String, admin_password: SecretString) -> anyhow::Result<Self> {
        let client = loopback::client(TIMEOUT)?.build()?;
        Ok(Self {
            client,
            url,
            admin_password,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A login takes about 25 ms, and a token that is kept may expire.
    async fn admin(&self) -> anyhow::Result<Session<'_>> {
        let user = json!({
            "name": "admin",
            "domain": { "id": "default" },
            "password": self.admin_password.expose_secret(),
        });
        let project = json!({ "name": "admin", "domain": { "id": "default" } });
        self.log_in(user, project).await
    }

    async fn log_in_as(&self, user: &User, project: &str) -> anyhow::Result<Session<'_>> {
        let who = json!({ "id": user.id, "password": user.password.expose_secret() });
        self.log_in(who, json!({ "id": project })).await
    }

    async fn log_in(&self, user: Value, project: Value) -> anyhow::Result<Session<'_>> {
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": project },
        } });
        let url = format!("{}/auth/tokens?nocatalog", self.url);
        let answer = accepted(self.client.post(url).json(&body).send().await?).await?;
        let token = answer
            .headers()
            .get("X-Subject-Token")
            .context("Keystone's answer to a login has no X-Subject-Token")?;
        Ok(Session {
            api: self,
            token: token.to_str()?.to_owned(),
        })
    }
}

impl Session<'_> {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.api
            .client
            .request(method, format!("{}{path}", self.api.url))
            .header("X-Auth-Token", &self.token)
    }

    /// Null where the answer has no body.
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let bytes = accepted(request.send().await?).await?.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("Keystone's answer is not JSON")
    }

    /// The id of the domain of this name, which is added if there is none.
    async fn domain(&self, name: &str) -> anyhow::Result<String> {
        let wanted = json!({ "domain": { "name": name } });
        let request = self.request(Method::POST, "/domains").json(&wanted);
        let answer = request.send().await?;
        if answer.status() != reqwest::StatusCode::CONFLICT {
            let created: Value = accepted(answer).await?.json().await?;
            return text(&created, "/domain/id");
        }
        let all = self.send(Method::GET, "/domains", None).await?;
        let domains = all["domains"].as_array().map_or(&[][..], Vec::as_slice);
        let found = domains.iter().find(|domain| domain["name"] == name);
        text(found.context("a domain vanished")?, "/id")
    }
}

/// An error unless the answer is a 2xx. It shows Keystone's message, in which no secret stands.
async fn accepted(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let body = answer.text().await.unwrap_or_default();
    Err(anyhow!("{url} answers {status}: {body}"))
}

fn text(value: &Value, pointer: &str) -> anyhow::Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .with_context(|| format!("Keystone's answer has no {pointer}"))
}
