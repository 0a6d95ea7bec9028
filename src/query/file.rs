//! The user's `clouds.yaml`: where it is, and its content.
use image_export_api::CloudName;
use image_export_cloud::{CloudClient, Credential, Place};
use image_export_model::ConfigurationError;
use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none in the usual folders.
    #[error("there is no clouds.yaml; name one with --clouds-yaml, or put one at {0}")]
    NoneFound(String),
    /// It cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Reported by the system.
        error: io::Error,
    },
    /// A file of that size is not a clouds.yaml.
    #[error("{0} is longer than 1 MiB")]
    TooLong(String),
}

/// Longest file that is read, in bytes: as much as a Secret holds.
const LONGEST: u64 = 1024 * 1024;

/// The first file where `OpenStack` tools search, in their order: `OS_CLIENT_CONFIG_FILE`, the working folder, the
/// user's configuration, the machine's.
pub fn find() -> Result<PathBuf, FileError> {
    if let Some(named) = env::var_os("OS_CLIENT_CONFIG_FILE").filter(|path| !path.is_empty()) {
        return Ok(named.into());
    }
    let user = env::var_os("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))
        .map(|folder| folder.join("openstack"));
    let folders = [
        Some(PathBuf::new()),
        user,
        Some(PathBuf::from("/etc/openstack")),
    ];
    let places: Vec<PathBuf> = folders
        .into_iter()
        .flatten()
        .flat_map(|folder| ["clouds.yaml", "clouds.yml"].map(|name| folder.join(name)))
        .collect();
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| {
        let shown: Vec<_> = places
            .iter()
            .filter(|place| place.extension().is_some_and(|end| end == "yaml"))
            .map(|place| place.display().to_string())
            .collect();
        FileError::NoneFound(shown.join(", "))
    })
}

/// A `clouds.yaml`, read whenever it is needed, so that edits count.
pub(super) struct CloudsFile {
    path: PathBuf,
    /// The content of what is not a regular file, such as a pipe, which can be read only once.
    once: Option<Vec<u8>>,
}

impl fmt::Display for CloudsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl CloudsFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, FileError> {
        let stream = std::fs::metadata(&path).is_ok_and(|about| !about.is_file());
        let once = stream.then(|| read(&path)).transpose()?;
        Ok(Self { path, once })
    }

    fn yaml(&self) -> Result<Vec<u8>, FileError> {
        self.once.clone().map_or_else(|| read(&self.path), Ok)
    }

    /// The clouds in it; none where it is not YAML, which [`Self::credential`] reports.
    pub(super) fn names(&self) -> Result<Vec<String>, FileError> {
        let yaml = self.yaml()?;
        Ok(image_export_cloud::cloud_names(&String::from_utf8_lossy(
            &yaml,
        )))
    }

    /// The entry of that name, together with the file of certificates that it names.
    pub(super) fn credential(
        &self,
        client: &CloudClient,
        name: &CloudName,
    ) -> Result<Result<Credential, ConfigurationError>, FileError> {
        let (place, yaml) = (Place::File(self.to_string()), self.yaml()?);
        let parse = |cacert: Option<&[u8]>| {
            let file = image_export_cloud::CloudsFile {
                place: &place,
                clouds_yaml: Some(&yaml),
                cacert,
            };
            client.credential(&file, name.as_str())
        };
        let parsed = parse(None);
        let certificates = parsed.as_ref().ok().and_then(Credential::cacert_path);
        match certificates {
            None => Ok(parsed),
            Some(path) => Ok(parse(Some(&read(&at_home(path))?))),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |error| FileError::Unreadable {
        path: path.display().to_string(),
        error,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(FileError::TooLong(path.display().to_string()));
    }
    Ok(bytes)
}

/// `~/x` as shells understand it.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}
