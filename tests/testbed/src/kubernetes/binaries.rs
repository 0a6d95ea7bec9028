//! Where kube-apiserver, etcd and kubectl come from: `$KUBEBUILDER_ASSETS`, the testbed's cache,
//! or one Go build that fills the cache. The Go module beside this crate names their versions.

use crate::{cache::hash, golang::Build};
use anyhow::{Context, bail, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The programs, by file name, with the Go package each is built from.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
];

/// Path of Kubernetes' version package; without these flags the server reports v0.0.0.
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";

const REMEDY: &str = "install Go 1.26 or newer (https://go.dev/doc/install), or set \
    KUBEBUILDER_ASSETS to a folder that holds etcd, kubectl and kube-apiserver";

/// The folder that holds the three programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Finds the programs by this process's environment, and builds them where there are none:
    /// about five minutes on two cores, once per version, with progress lines on stderr.
    pub fn locate() -> anyhow::Result<Self> {
        Self::resolve(&Lookup::from_env())
    }

    /// [`Self::locate`] with the environment given.
    pub fn resolve(lookup: &Lookup) -> anyhow::Result<Self> {
        if let Some(folder) = &lookup.assets {
            return Self::from_assets(folder);
        }
        let cache = lookup.cache_folder().context(
            "no place for the testbed's programs: set IMAGE_EXPORT_TESTBED_CACHE to a folder, \
             or HOME",
        )?;
        Recipe::load(&module_folder())?.obtain(&cache)
    }

    /// Path of kube-apiserver.
    #[must_use]
    pub fn kube_apiserver(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    /// Path of etcd.
    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// Path of kubectl.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.folder.join("kubectl")
    }

    fn from_assets(folder: &Path) -> anyhow::Result<Self> {
        let missing: Vec<&str> = missing(folder).collect();
        ensure!(
            missing.is_empty(),
            "KUBEBUILDER_ASSETS={} lacks {}: put it there, or unset KUBEBUILDER_ASSETS to let \
             the testbed build its own programs",
            folder.display(),
            missing.join(", ")
        );
        Ok(Self {
            folder: folder.to_owned(),
        })
    }
}

/// The environment variables that decide where programs are looked for; empty counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `KUBEBUILDER_ASSETS`: a folder with all three programs, used as it is.
    pub assets: Option<PathBuf>,
    /// `IMAGE_EXPORT_TESTBED_CACHE`: where built programs are kept.
    pub cache: Option<PathBuf>,
    /// `XDG_CACHE_HOME`: the cache is a folder in there, if `cache` is unset.
    pub xdg_cache_home: Option<PathBuf>,
    /// `HOME`: the cache is below `.cache` in there, if nothing else is set.
    pub home: Option<PathBuf>,
}

impl Lookup {
    /// From this process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        let folder = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            assets: folder("KUBEBUILDER_ASSETS"),
            cache: folder("IMAGE_EXPORT_TESTBED_CACHE"),
            xdg_cache_home: folder("XDG_CACHE_HOME"),
            home: folder("HOME"),
        }
    }

    /// The folder for built programs, `None` where nothing names one.
    #[must_use]
    pub fn cache_folder(&self) -> Option<PathBuf> {
        const NAME: &str = "image-export-operator";
        self.cache
            .clone()
            .or_else(|| Some(self.xdg_cache_home.as_ref()?.join(NAME)))
            .or_else(|| Some(self.home.as_ref()?.join(".cache").join(NAME)))
    }
}

/// One way to build the programs; whatever changes the result is part of [`Self::key`].
#[derive(Debug)]
struct Recipe {
    module: PathBuf,
    version: String,
    flags: Vec<String>,
    hash: u64,
}

impl Recipe {
    fn load(module: &Path) -> anyhow::Result<Self> {
        let read = |name| {
            let file = module.join(name);
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let version = kubernetes_version(&go_mod)?.to_owned();
        let flags = build_flags(&version)?;
        let parts: Vec<&str> = [&go_mod, &go_sum]
            .into_iter()
            .chain(&flags)
            .map(String::as_str)
            .collect();
        let hash = hash(&parts);
        Ok(Self {
            module: module.to_owned(),
            version,
            flags,
            hash,
        })
    }

    fn key(&self) -> String {
        let (os, arch) = (env::consts::OS, env::consts::ARCH);
        format!("kubernetes-{}-{os}-{arch}-{:016x}", self.version, self.hash)
    }

    /// The programs from the cache, built first if they are not there.
    fn obtain(&self, cache: &Path) -> anyhow::Result<Binaries> {
        let key = self.key();
        let build = Build {
            module: &self.module,
            what: &format!("Kubernetes {}", self.version),
            takes: "about 5 minutes",
            key: &key,
            flags: &self.flags,
            programs: &PROGRAMS,
            remedy: REMEDY,
        };
        build.ensure(cache)?;
        Ok(Binaries {
            folder: cache.join(key),
        })
    }
}

fn module_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

fn missing(folder: &Path) -> impl Iterator<Item = &'static str> {
    PROGRAMS
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !folder.join(name).is_file())
}

/// The version that go.mod requires of `k8s.io/kubernetes`, for example `v1.36.3`.
fn kubernetes_version(go_mod: &str) -> anyhow::Result<&str> {
    go_mod
        .lines()
        .find_map(|line| {
            let line = line.trim().trim_start_matches("require ");
            line.strip_prefix("k8s.io/kubernetes ")?
                .split_whitespace()
                .next()
        })
        .context("go.mod requires no k8s.io/kubernetes")
}

fn build_flags(version: &str) -> anyhow::Result<Vec<String>> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else {
        bail!("go.mod requires k8s.io/kubernetes {version}, which is no version");
    };
    let set = |name, value| format!("-X {VERSION_PACKAGE}.{name}={value}");
    let linker = [
        "-s -w".to_owned(),
        set("gitVersion", version),
        set("gitMajor", major),
        set("gitMinor", minor),
    ];
    Ok(vec![
        "-mod=readonly".into(),
        "-trimpath".into(),
        "-ldflags".into(),
        linker.join(" "),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_module_names_a_version_and_its_flags_carry_it() {
        let recipe = Recipe::load(&module_folder()).unwrap();
        assert!(recipe.version.starts_with("v1."), "{}", recipe.version);
        assert!(recipe.key().contains(&recipe.version));
        assert!(
            recipe.flags[3].contains(&format!("gitVersion={}", recipe.version)),
            "{:?}",
            recipe.flags
        );
    }

    #[test]
    fn the_version_is_the_required_one_not_that_of_a_staging_module() {
        let go_mod =
            "require (\n\tk8s.io/kubectl v0.30.1\n\tk8s.io/kubernetes v1.30.1 // indirect\n)\n";
        assert_eq!(kubernetes_version(go_mod).unwrap(), "v1.30.1");
        assert_eq!(
            kubernetes_version("require k8s.io/kubernetes v1.31.0").unwrap(),
            "v1.31.0"
        );
        assert!(kubernetes_version("k8s.io/kubernetes/cmd/kubectl").is_err());
    }
}
