//! The manual and `--help` name what there is.

use std::process::Command;
use testbed::ims::{PRESETS, admin_routes};

const MANUAL: &str = include_str!("../../../../docs/simulator.md");

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ims-simulator"))
        .arg("--help")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// With single spaces, so that tables may be aligned.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_manual_lists_every_preset_with_what_it_shows() {
    for preset in PRESETS {
        let row = format!("| `{}` | {} |", preset.name, preset.about);
        assert!(MANUAL.contains(&row), "{row}");
    }
    let rows = MANUAL.lines().skip_while(|line| *line != "## Presets");
    let rows = rows.filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, PRESETS.len(), "rows of presets that there are not");
}

#[test]
fn the_manual_and_the_help_list_the_whole_admin_api() {
    let (manual, help) = (words(MANUAL), words(&help()));
    for route in admin_routes() {
        assert!(manual.contains(&format!("| `{route}` |")), "{route}");
        assert!(help.contains(&route), "{route}");
    }
}

#[test]
fn the_manual_lists_every_flag() {
    let help = help();
    let flags: Vec<&str> = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("--"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(flags.contains(&"--keystone"), "{help}");
    for flag in flags {
        assert!(MANUAL.contains(&format!("| `{flag}")), "{flag}");
    }
}
