//! `image-export-operator query`: queries one job by hand, with a `clouds.yaml` of the user's.
//!
//! It is the operator for a single object that no cluster holds: the same cloud client polls, the
//! same tracker schedules the polls and decides the status. Only the runtime around them differs.

mod file;
mod progress;
mod report;
mod runtime;

use file::CloudsFile;
pub use file::{FileError, find};
use image_export_api::{CloudName, JobId, ProjectId};
use image_export_cloud::CloudClient;
use image_export_core::Config;
use image_export_model::{ConfigurationError, ConfigurationReason};
pub use report::{Exit, Report};
use runtime::{LocalRuntime, Target};
use std::path::PathBuf;

/// Which job to query, and how.
#[derive(Clone, Debug)]
pub struct Query {
    /// The `clouds.yaml`.
    pub file: PathBuf,
    /// Its entry; `None`: the only one.
    pub cloud: Option<String>,
    /// Project of the job; `None`: the one that the entry names by id.
    pub project: Option<String>,
    /// The job.
    pub job: JobId,
    /// Periods and graces.
    pub config: Config,
}

/// Why no query can be sent.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no file, or it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No cloud was named, and the file has several or none.
    #[error("{file} has {clouds}: name one with --cloud or OS_CLOUD")]
    WhichCloud {
        /// The file.
        file: String,
        /// The clouds in it.
        clouds: String,
    },
    /// A name that no `ImageExportJob` may hold.
    #[error("--cloud {0:?} is not a name that an ImageExportJob can hold")]
    CloudName(String),
    /// Neither the user nor the entry names a project.
    #[error("cloud {0:?} names no project_id: name the project of the job with --project")]
    WhichProject(String),
    /// The entry is invalid, and so is the project in it.
    #[error("{}", .0.message)]
    Misconfigured(ConfigurationError),
    /// A project that no `ImageExportJob` may hold.
    #[error("project {0:?} is not an id: 1 to 64 letters, digits, - and _")]
    ProjectId(String),
}

impl QueryError {
    /// The exit code: that of a report with the same error, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Misconfigured(error) => Exit::from(error.reason) as u8,
            _ => 1,
        }
    }
}

/// Polls once or, with `wait`, until the job has ended or only the user can help. Progress goes to
/// standard error.
pub async fn run(client: CloudClient, query: Query, wait: bool) -> Result<Report, QueryError> {
    let file = CloudsFile::open(query.file)?;
    let cloud = which_cloud(&client, &file, query.cloud)?;
    let credential = file.credential(&client, &cloud)?;
    let project = match (query.project, credential) {
        (Some(named), _) => named,
        (None, Ok(credential)) => credential
            .project_id()
            .map(str::to_owned)
            .ok_or_else(|| QueryError::WhichProject(cloud.to_string()))?,
        (None, Err(error)) => return Err(QueryError::Misconfigured(error)),
    };
    let project: ProjectId = project
        .parse()
        .map_err(|_| QueryError::ProjectId(project.clone()))?;
    let target = Target {
        client,
        file,
        cloud,
        project,
        job: query.job,
        config: query.config,
    };
    let finished = LocalRuntime::run(&target, wait).await;
    Ok(Report::new(target.project, target.job, finished))
}

/// The named cloud, else the only one.
fn which_cloud(
    client: &CloudClient,
    file: &CloudsFile,
    named: Option<String>,
) -> Result<CloudName, QueryError> {
    let parse = |name: String| {
        name.parse::<CloudName>()
            .map_err(|_| QueryError::CloudName(name))
    };
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return parse(name);
    }
    let names = file.names()?;
    let clouds = match names.as_slice() {
        [only] => return parse(only.clone()),
        [] => {
            // The file may not be YAML at all; parsing any entry of it reports that.
            match file.credential(client, &parse("cloud".to_owned())?)? {
                Err(error) if error.reason == ConfigurationReason::CredentialsInvalid => {
                    return Err(QueryError::Misconfigured(error));
                }
                _ => "no clouds".to_owned(),
            }
        }
        several => format!("the clouds {}", several.join(", ")),
    };
    Err(QueryError::WhichCloud {
        file: file.to_string(),
        clouds,
    })
}
