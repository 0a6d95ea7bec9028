//! The user's `clouds.yaml`: where it is, and its content.
use image_export_api::CloudName;
use image_export_cloud::{CloudClient, Credential, Place};
use image_export_model::ConfigurationError;
use std::{
    env,
    ffi::OsString,
    fmt,
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
    find_with(|name| env::var_os(name))
}

/// [`find`] with these environment variables.
fn find_with(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, FileError> {
    let path = |name| variable(name).filter(|path| !path.is_empty());
    if let Some(named) = path("OS_CLIENT_CONFIG_FILE") {
        return Ok(named.into());
    }
    let user = path("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(path("HOME")?).join(".config")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::scratch::Scratch;

    #[test]
    fn the_first_file_in_the_order_of_the_openstack_tools_is_found() {
        let scratch = Scratch::new("clouds-yaml");
        let folder = |name: &str| scratch.path().join(name);
        let find = |named: &str, config: &str, home: &str| {
            find_with(|name| {
                let value = match name {
                    "OS_CLIENT_CONFIG_FILE" => named,
                    "XDG_CONFIG_HOME" => config,
                    "HOME" => home,
                    other => panic!("{other}"),
                };
                match value {
                    "unset" => None,
                    "" => Some(OsString::new()),
                    name => Some(folder(name).into()),
                }
            })
        };
        let error = find("", "", "home").unwrap_err().to_string();
        let home = folder("home/.config/openstack/clouds.yaml");
        let expected = format!(
            "there is no clouds.yaml; name one with --clouds-yaml, or put one at clouds.yaml, {}, \
             /etc/openstack/clouds.yaml",
            home.display()
        );
        assert_eq!(error, expected);
        let error = find("unset", "unset", "unset").unwrap_err().to_string();
        assert!(
            error.ends_with("at clouds.yaml, /etc/openstack/clouds.yaml"),
            "{error}"
        );

        for (name, arguments) in [
            (
                "home/.config/openstack/clouds.yml",
                ["unset", "unset", "home"],
            ),
            ("home/.config/openstack/clouds.yaml", ["unset", "", "home"]),
            ("config/openstack/clouds.yaml", ["", "config", "home"]),
        ] {
            let path = folder(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "clouds: {}").unwrap();
            let [named, config, home] = arguments;
            assert_eq!(find(named, config, home).unwrap(), path);
        }
        // What is named need not exist: opening it reports that.
        assert_eq!(find("named", "config", "home").unwrap(), folder("named"));
    }

    #[test]
    fn a_file_of_one_mebibyte_is_read_and_no_longer_one() {
        let scratch = Scratch::new("length");
        let path = scratch.path().join("clouds.yaml");
        let longest = usize::try_from(LONGEST).unwrap();
        assert_eq!(longest, 1_048_576);
        std::fs::write(&path, vec![b'#'; longest]).unwrap();
        assert_eq!(read(&path).unwrap().len(), longest);
        std::fs::write(&path, vec![b'#'; longest + 1]).unwrap();
        let expected = format!("{} is longer than 1 MiB", path.display());
        assert_eq!(read(&path).unwrap_err().to_string(), expected);
        let absent = scratch.path().join("absent");
        let beginning = format!("{} cannot be read: ", absent.display());
        assert!(
            read(&absent)
                .unwrap_err()
                .to_string()
                .starts_with(&beginning)
        );
    }

    #[test]
    fn a_path_may_begin_at_the_home_folder() {
        let home = env::var_os("HOME").map(PathBuf::from);
        let expected = home.map_or("~/ca.pem".into(), |home| home.join("ca.pem"));
        assert_eq!(at_home("~/ca.pem"), expected);
        assert_eq!(at_home("/etc/ca.pem"), Path::new("/etc/ca.pem"));
        assert_eq!(at_home("~other/ca.pem"), Path::new("~other/ca.pem"));
    }
}
