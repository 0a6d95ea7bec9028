//! Times in the status: the API server admits exactly those that the operator reads and writes again to
//! the letter, in the years 0 to 8999. A time that it admits and the operator cannot read would be lost
//! with the next write.

use crate::harness::Team;
use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// The parts of a time, usual ones first.
const PARTS: [&[&str]; 6] = [
    &[
        "2024", "0000", "0001", "1969", "2262", "8999", "9000", "9998", "9999", "10000", "99999",
        "24", "-2024", "+2024", "+002024", "-000001",
    ],
    &[
        "-01-01", "-02-29", "-02-30", "-06-31", "-12-30", "-12-31", "-13-01", "-00-10", "-01-00",
        "-1-1", "0101", "-W01-1", "-001",
    ],
    &["T", "t", " ", "_", ""],
    &[
        "00:00:00", "23:59:59", "23:59:60", "23:59:61", "24:00:00", "12:60:00", "12:00", "120000",
        "7:00:00", "12", "",
    ],
    &["", ".0", ".5", ".123456789", ".1234567890", ".", ",5"],
    &[
        "Z",
        "z",
        "",
        "+00:00",
        "-00:00",
        "+01:00",
        "-01:00",
        "+14:00",
        "+23:59",
        "-23:59",
        "+24:00",
        "-25:59",
        "+26:00",
        "+99:99",
        "-99:99",
        "+01:60",
        "+01",
        "+0100",
        "+01:00:30",
        " Z",
        "Z ",
        "Z\n",
        "[UTC]",
        "Z[UTC]",
        "+01:00[Europe/Berlin]",
        "UTC",
        "Europe/Berlin",
    ],
];

/// All times that differ from the usual one in at most two parts.
fn candidates() -> Vec<String> {
    let usual = PARTS.map(|choices| choices[0]);
    let mut found = Vec::new();
    for (one, two) in (0..PARTS.len()).flat_map(|one| (0..one).map(move |two| (one, two))) {
        for first in PARTS[one] {
            for second in PARTS[two] {
                let mut parts = usual;
                (parts[one], parts[two]) = (first, second);
                found.push(parts.concat());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_read_and_written_to_the_letter(text: &str) -> bool {
    let read = serde_json::from_value::<Time>(json!(text));
    read.is_ok_and(|time| serde_json::to_value(time).is_ok_and(|written| written == text))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_admits_the_times_that_the_operator_reads_and_writes_to_the_letter() {
    let team = Team::without_operator("times").await;
    team.create("job").await;
    let parameters = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let admits = async |text: String| {
        let mut answers = Vec::new();
        for field in ["startTime", "completionTime"] {
            let patch = Patch::Merge(json!({ "status": { field: text } }));
            let answer = team.jobs.patch_status("job", &parameters, &patch).await;
            answers.push(match answer {
                Ok(_) => true,
                Err(kube::Error::Api(status)) if status.code == 422 => false,
                Err(error) => panic!("{text}: {error}"),
            });
        }
        assert_eq!(answers[0], answers[1], "{text}");
        (text, answers[0])
    };
    let mut answers = stream::iter(candidates()).map(admits).buffer_unordered(16);
    let mut admitted = 0;
    while let Some((text, is_admitted)) = answers.next().await {
        let expected = is_read_and_written_to_the_letter(&text) && text[..4] < *"9000";
        assert_eq!(is_admitted, expected, "{text:?}");
        admitted += usize::from(is_admitted);
    }
    // Of 6 years, 4 without February 29, and 4 days: at midnight, and what differs in one part at 23:59:59.
    assert_eq!(admitted, (6 * 4 - 4) + (6 + 4 - 1));
}
