//! `image-export-operator query`: asks about one job by hand, with a `clouds.yaml` of the user's.
//!
//! It is the operator for a single object that no cluster holds: the same client asks, the same
//! tracker paces, classifies and decides the status. Only the shell around them is another one.

mod file;
mod follow;
mod report;

use file::CloudsFile;
pub use file::{FileError, find};
pub use follow::{Ended, Follow};
use image_export_api::{CloudName, JobId, ProjectId};
use image_export_cloud::CloudClient;
use image_export_core::Config;
use image_export_model::{ConfigurationError, ConfigurationReason};
pub use report::{Exit, Report};
use std::path::PathBuf;

/// What to ask.
#[derive(Clone, Debug)]
pub struct Question {
    /// The `clouds.yaml`.
    pub file: PathBuf,
    /// Its entry; `None`: the only one.
    pub cloud: Option<String>,
    /// Project of the job; `None`: the one that the entry names by id.
    pub project: Option<String>,
    /// The job.
    pub job: JobId,
    /// The pace, where several questions are asked, and the graces.
    pub config: Config,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No cloud was named, and the file has several or none.
    #[error("{file} has {there}: name one with --cloud or OS_CLOUD")]
    WhichCloud {
        /// The file.
        file: String,
        /// The clouds that are there.
        there: String,
    },
    /// A name that no `ImageExportJob` may hold.
    #[error("--cloud {0:?} is not a name that an ImageExportJob can hold")]
    CloudName(String),
    /// Neither the user nor the entry names a project.
    #[error("cloud {0:?} names no project_id: name the project of the job with --project")]
    WhichProject(String),
    /// The entry cannot be used, so that it does not tell its project either.
    #[error("{}", .0.message)]
    Refused(ConfigurationError),
    /// A project that no `ImageExportJob` may hold.
    #[error("project {0:?} is not an id: 1 to 64 letters, digits, - and _")]
    ProjectId(String),
}

impl QuestionError {
    /// The exit code: as where the same is found out later, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refusal) => Exit::from(refusal.reason) as u8,
            _ => 1,
        }
    }
}

/// Asks once or, if it is to `wait`, until the job has ended or somebody has to mend something.
/// Progress goes to standard error.
pub async fn ask(
    cloud: CloudClient,
    question: Question,
    wait: bool,
) -> Result<Report, QuestionError> {
    let file = CloudsFile::open(question.file)?;
    let cloud_name = which_cloud(&cloud, &file, question.cloud)?;
    let credential = file.credential(&cloud, &cloud_name)?;
    let project = match (question.project, credential) {
        (Some(named), _) => named,
        (None, Ok(credential)) => credential
            .project_id()
            .map(str::to_owned)
            .ok_or_else(|| QuestionError::WhichProject(cloud_name.to_string()))?,
        (None, Err(refusal)) => return Err(QuestionError::Refused(refusal)),
    };
    let project: ProjectId = project
        .parse()
        .map_err(|_| QuestionError::ProjectId(project.clone()))?;
    let follow = Follow::new(
        cloud,
        file,
        cloud_name,
        project,
        question.job,
        question.config,
    );
    Ok(Report::from(follow.run(wait).await))
}

/// The cloud that was named, else the only one.
fn which_cloud(
    client: &CloudClient,
    file: &CloudsFile,
    named: Option<String>,
) -> Result<CloudName, QuestionError> {
    let parse = |name: String| {
        name.parse::<CloudName>()
            .map_err(|_| QuestionError::CloudName(name))
    };
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return parse(name);
    }
    let names = file.names()?;
    match names.as_slice() {
        [only] => parse(only.clone()),
        [] => {
            // It may be no YAML at all: whatever cloud is asked for tells.
            match file.credential(client, &parse("cloud".to_owned())?)? {
                Err(refusal) if refusal.reason == ConfigurationReason::CredentialsInvalid => {
                    Err(QuestionError::Refused(refusal))
                }
                _ => Err(which(file, "no clouds".to_owned())),
            }
        }
        several => Err(which(file, format!("the clouds {}", several.join(", ")))),
    }
}

fn which(file: &CloudsFile, there: String) -> QuestionError {
    QuestionError::WhichCloud {
        file: file.to_string(),
        there,
    }
}
