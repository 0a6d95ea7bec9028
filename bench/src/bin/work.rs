//! Work whose instructions `.ci/instructions` counts: polls without a change, in the tracker alone and in the cloud
//! client alone. What a run costs beside its polls drops out of the difference of two runs.

use anyhow::{Context, bail};
use image_export_cloud::{CloudClient, CloudOptions, CloudsFile, EndpointPolicy, Place};
use image_export_core::{
    Config, Effect, Input, Now, Output, PollMode, Source, Tracker, WriteResult,
};
use image_export_model::{Caller, JobAnswer, JobState, Observation, Outcome, PriorAcceptance};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

/// Objects in the tracker.
const OBJECTS: u64 = 1000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments[..] {
        ["tracker", polls] => tracker(polls.parse()?),
        ["client", polls, url] => runtime.block_on(client(polls.parse()?, url)),
        ["serve"] => serve(),
        _ => bail!("work tracker POLLS | client POLLS URL | serve"),
    }
}

/// A cloud for `client`, which makes one connection; its URL is printed.
fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let body = r#"{"status":"RUNNING","entities":{},"job_id":"job","job_type":"imsNativeExportImageJob","begin_time":"2024-11-06T06:50:00.000Z","end_time":null,"error_code":null,"fail_reason":null}"#;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    loop {
        let (mut connection, _) = listener.accept()?;
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        // Requests without bodies, each of which ends with an empty line.
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                connection.write_all(answer.as_bytes())?;
            }
        }
    }
}

/// One poll after the other.
async fn client(polls: u64, url: &str) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")?;
    let client = CloudClient::new(CloudOptions {
        policy: Arc::new(EndpointPolicy {
            allow_http: true,
            ..EndpointPolicy::default()
        }),
        ..CloudOptions::default()
    })?;
    let yaml = format!(
        "clouds: {{otc: {{ak: AK, sk: some-secret-key, image_endpoint_override: '{url}'}}}}"
    );
    let file = CloudsFile {
        place: &Place::KeyOf("Secret bench/otc".to_owned()),
        clouds_yaml: Some(yaml.as_bytes()),
        cacert: None,
    };
    let credential = client
        .credential(&file, "otc")
        .map_err(|error| anyhow::anyhow!(error.message))?;
    let (project, job) = ("project".parse()?, "job".parse()?);
    let caller = Caller {
        namespace: "bench".into(),
        prior: PriorAcceptance::Accepted,
    };
    for _ in 0..polls {
        let observation = client.query(&credential, &project, &job, &caller).await;
        anyhow::ensure!(
            matches!(observation.outcome, Outcome::Answered(_)),
            "{observation:?}"
        );
    }
    Ok(())
}

/// In virtual time. Each answer says that the job still runs.
fn tracker(polls: u64) -> anyhow::Result<()> {
    let mut now = Now {
        mono: Duration::ZERO,
        wall: "2024-11-06T06:50:00Z".parse()?,
    };
    let config = Config {
        poll_mode: PollMode::Adaptive,
        quota_rate: 1000.0,
        quota_burst: 2000.0,
        host_rate: 1000.0,
        host_burst: 2000.0,
        ..Config::default()
    };
    let mut tracker = Tracker::new(config, now);
    let mut inputs = vec![Input::Leading(true), Input::ListStarted(Source(0))];
    for n in 0..OBJECTS {
        let object = serde_json::from_value(json!({
            "apiVersion": "imageexport.dev/v1alpha1",
            "kind": "ImageExportJob",
            "metadata": {
                "name": format!("job-{n}"), "namespace": "bench", "generation": 1, "resourceVersion": "1",
                "uid": format!("00000000-0000-4000-8000-{n:012}"),
                "creationTimestamp": "2024-11-06T06:50:00Z",
            },
            "spec": {
                "projectID": "project", "jobID": format!("job-{n}"),
                "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
            },
        }))?;
        inputs.push(Input::Applied(Source(0), Box::new(object)));
    }
    inputs.push(Input::Listed(Source(0)));
    let mut answered = 0;
    let mut version = 1_u64;
    while answered < polls {
        if inputs.is_empty() {
            let at = tracker.next_deadline().context("nothing is due")?;
            let step = at.saturating_sub(now.mono);
            now.mono += step;
            now.wall += step;
            inputs.push(Input::Tick);
        }
        let mut output = Output::default();
        for input in inputs.drain(..) {
            tracker.handle(now, input, &mut output);
        }
        for effect in output.effects {
            inputs.push(match effect {
                Effect::Poll(request) => {
                    answered += 1;
                    Input::Polled(request.ticket.clone(), running())
                }
                Effect::ReadCredential(reference) => Input::CredentialRead(reference, Ok(1)),
                Effect::WriteStatus(write) => {
                    version += 1;
                    let written = WriteResult::Written {
                        version: version.to_string(),
                        status: Some(Box::new(write.status)),
                    };
                    Input::Wrote(write.ticket, written)
                }
                other => bail!("{other:?}"),
            });
        }
    }
    Ok(())
}

fn running() -> Observation {
    let answer = JobAnswer {
        state: JobState::Running,
        job_type: Some("imsNativeExportImageJob".into()),
        image_id: None,
        fail_reason: None,
        error_code: None,
        percent: None,
        begin_time: None,
        end_time: None,
    };
    Observation {
        endpoint: Some("ims.example.com".into()),
        queried: Some("host".into()),
        proves_project: true,
        ..Observation::of(Outcome::Answered(Box::new(answer)), 1)
    }
}
