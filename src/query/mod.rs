//! `image-export-operator query`: asks about one job by hand, with a `clouds.yaml` of the user's.
//!
//! It is the operator for a single object that no cluster holds: the same client asks, the same
//! tracker paces, classifies and decides the status. Only the shell around them is another one.

mod file;
mod follow;
mod report;

pub use file::{FileError, find};
pub use follow::{Ended, Follow};
pub use report::{Exit, Report};

use crate::{
    api::{CloudName, JobId, ProjectId},
    cloud::CloudClient,
};
use file::CloudsFile;
use std::{path::PathBuf, time::Duration};

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
    /// Time between two questions, where several are asked.
    pub period: Duration,
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
    /// A project that no `ImageExportJob` may hold.
    #[error("project {0:?} is not an id: 1 to 64 letters, digits, - and _")]
    ProjectId(String),
}

/// Asks once or, if it is to `wait`, until the job has ended or somebody has to mend something.
/// Progress goes to standard error.
pub async fn ask(
    cloud: CloudClient,
    question: Question,
    wait: bool,
) -> Result<Report, QuestionError> {
    let file = CloudsFile::new(question.file);
    let names = file.names()?;
    let name = match (&question.cloud, names.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.clone(),
        (None, several) => {
            return Err(QuestionError::WhichCloud {
                file: file.to_string(),
                there: match several {
                    [] => "no clouds".to_owned(),
                    some => format!("the clouds {}", some.join(", ")),
                },
            });
        }
    };
    let cloud_name: CloudName = name
        .parse()
        .map_err(|_| QuestionError::CloudName(name.clone()))?;
    let own = file
        .credential(&cloud, &cloud_name)?
        .ok()
        .and_then(|credential| credential.project_id().map(str::to_owned));
    let project = question
        .project
        .or(own)
        .ok_or(QuestionError::WhichProject(name))?;
    let project: ProjectId = project
        .parse()
        .map_err(|_| QuestionError::ProjectId(project.clone()))?;
    let follow = Follow::new(
        cloud,
        file,
        cloud_name,
        project,
        question.job,
        question.period,
    );
    Ok(Report::from(follow.run(wait).await))
}
