//! The services behind the scripts: the job query, the login, the revocation.

use super::{
    Answer, JobKey,
    answer::RequestFacts,
    iam::{Access, Caller, Refusal, Signed},
    log::Credential,
    refusal,
    server::{Route, Shared, text},
    validation::{Unvouched, Validated},
    visit::Visit,
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use std::time::Instant;

/// Longest body of a request that is read, bytes.
const BODY_LIMIT: usize = 64 * 1024;

pub(super) async fn answer(
    shared: &Shared,
    route: &Route,
    request: Request,
    facts: &RequestFacts,
    visit: &mut Visit,
) -> Response {
    let (parts, body) = request.into_parts();
    let served = match route {
        Route::Poll { key, newer } => poll(shared, key, *newer, &parts, body, visit).await,
        Route::Login { catalog } => match login(shared, &parts.headers, body, *catalog).await {
            Ok(response) => return response,
            Err(refusal) => Err(refusal),
        },
        Route::Revoke => revoke(shared, &parts.headers),
        Route::Unknown => Err(refusal::api_not_published()),
    };
    served
        .unwrap_or_else(|refusal| refusal)
        .play(facts)
        .await
        .expect("the services always answer themselves")
}

async fn read(body: Body) -> Result<Bytes, Answer> {
    to_bytes(body, BODY_LIMIT).await.map_err(|error| {
        Answer::keystone_error(413, "Request Entity Too Large", &error.to_string())
    })
}

async fn poll(
    shared: &Shared,
    key: &JobKey,
    newer: bool,
    parts: &Parts,
    body: Body,
    visit: &mut Visit,
) -> Result<Answer, Answer> {
    let signed = Signed {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        body: &read(body).await?,
    };
    let path_project = (!newer).then_some(key.project.as_str());
    let authorized = shared.iam().authorize(&signed, path_project);
    let access = match authorized {
        Ok(access) => access,
        Err(Refusal::Answered(refusal)) => return Err(refusal),
        Err(Refusal::UnknownToken) => {
            let validated = validate(shared, &parts.headers).await;
            let validated = validated.map_err(|unvouched| match unvouched {
                Unvouched::Dead => refusal::token_undecryptable(),
                Unvouched::Unavailable => refusal::iam_unavailable(),
            })?;
            visit.proved(Credential::KeystoneToken);
            validated.scope.access(path_project)?
        }
    };
    let key = match access {
        Access::Project(project) => JobKey::new(project, &key.job),
        Access::AnyProject => key.clone(),
    };
    let admitted = shared.throttle().admit(&key.project, Instant::now());
    if let Err(refusal) = admitted {
        shared.log().counters.throttled += 1;
        return Err(refusal);
    }
    shared
        .job_body(&key)
        .map(|body| Answer::json(200, body))
        .ok_or_else(refusal::job_not_found)
}

/// Asks the real Keystone about the request's token; without one all unknown tokens are dead.
async fn validate(shared: &Shared, headers: &HeaderMap) -> Result<Validated, Unvouched> {
    let keystone = shared.keystone.as_ref().ok_or(Unvouched::Dead)?;
    shared.log().counters.keystone_validations += 1;
    keystone.validate(text(headers, "x-auth-token")).await
}

async fn login(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    catalog: bool,
) -> Result<Response, Answer> {
    // The catalog names the simulator as the client reached it.
    let authority = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or(&shared.authority);
    let image_url = catalog.then(|| format!("http://{authority}"));
    let body = read(body).await?;
    let vouched = vouched_caller(shared, headers).await?;
    let issued = shared.iam().login(
        &body,
        headers,
        vouched,
        image_url.as_deref(),
        &shared.region,
    )?;
    shared.log().counters.tokens_issued += 1;
    let mut token =
        HeaderValue::try_from(issued.token).expect("issued tokens are plain characters");
    token.set_sensitive(true);
    let mut response = (StatusCode::CREATED, axum::Json(issued.body)).into_response();
    response.headers_mut().insert("X-Subject-Token", token);
    Ok(response)
}

/// Whose token came with a login, if it is one of a real Keystone.
async fn vouched_caller(shared: &Shared, headers: &HeaderMap) -> Result<Option<Caller>, Answer> {
    let credential = shared.iam().credential(headers);
    if credential != Credential::UnknownToken || shared.keystone.is_none() {
        return Ok(None);
    }
    match validate(shared, headers).await {
        Ok(validated) => Ok(Some(validated.holder)),
        Err(Unvouched::Dead) => Ok(None),
        Err(Unvouched::Unavailable) => Err(Answer::preset("unavailable")),
    }
}

/// A valid token may revoke itself or another.
fn revoke(shared: &Shared, headers: &HeaderMap) -> Result<Answer, Answer> {
    let mut iam = shared.iam();
    match iam.credential(headers) {
        Credential::FixedToken | Credential::IssuedToken => {
            if iam.revoke(text(headers, "x-subject-token")) {
                Ok(Answer::status(204))
            } else {
                Err(Answer::preset("iam-not-found"))
            }
        }
        _ => Err(refusal::login_refused()),
    }
}
