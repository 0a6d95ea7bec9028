//! Where the testbed finds its programs, and its errors where there are none.

use std::{fs, path::PathBuf};
use testbed::kubernetes::{Binaries, Lookup};

#[test]
fn an_assets_folder_without_a_program_is_an_error_that_names_both() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("incomplete-assets");
    fs::create_dir_all(&folder).unwrap();
    for present in ["etcd", "kubectl"] {
        fs::write(folder.join(present), "").unwrap();
    }
    let error = Binaries::resolve(&Lookup {
        assets: Some(folder.clone()),
        ..Lookup::default()
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("lacks kube-apiserver:") && error.contains(folder.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_complete_assets_folder_is_used_as_it_is() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("complete-assets");
    fs::create_dir_all(&folder).unwrap();
    for program in ["etcd", "kubectl", "kube-apiserver"] {
        fs::write(folder.join(program), "").unwrap();
    }
    let binaries = Binaries::resolve(&Lookup {
        assets: Some(folder.clone()),
        ..Lookup::default()
    })
    .unwrap();
    assert_eq!(binaries.etcd(), folder.join("etcd"));
    assert_eq!(binaries.kubectl(), folder.join("kubectl"));
    assert_eq!(binaries.kube_apiserver(), folder.join("kube-apiserver"));
}

#[test]
fn the_cache_is_the_testbeds_own_variable_else_xdg_else_home() {
    let mut lookup = Lookup {
        assets: None,
        cache: Some("/own".into()),
        xdg_cache_home: Some("/xdg".into()),
        home: Some("/home/dev".into()),
    };
    assert_eq!(lookup.cache_folder(), Some("/own".into()));
    lookup.cache = None;
    assert_eq!(
        lookup.cache_folder(),
        Some("/xdg/image-export-operator".into())
    );
    lookup.xdg_cache_home = None;
    assert_eq!(
        lookup.cache_folder(),
        Some("/home/dev/.cache/image-export-operator".into())
    );
    lookup.home = None;
    assert_eq!(lookup.cache_folder(), None);
    let error = Binaries::resolve(&lookup).unwrap_err().to_string();
    assert!(error.contains("IMAGE_EXPORT_TESTBED_CACHE"), "{error}");
}
