//! Faults E9 to E14: what may become of an answer on its way. TLS (E13) and what only HTTP/2 can do
//! (the rest of E12) are tested beside the client, as the simulator speaks plain HTTP/1.1.

use super::{Lab, failed, given_token, passing};
use crate::harness::{PROJECT, TOKEN, key};
use flate2::{Compression, write::GzEncoder};
use image_export_model::{FailureKind, JobState, Outcome};
use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::ims::{Answer, Job};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

#[tokio::test]
async fn e9_an_answer_that_trickles_or_never_comes_costs_one_time_out() {
    let lab = Lab::impatient().await;
    let host = lab.host();
    for (preset, message) in [
        ("hang", format!("{host} did not answer within 1 s")),
        ("drip-head", format!("{host} did not answer within 1 s")),
        (
            "drip",
            format!("the answer of {host} did not end within 1 s"),
        ),
    ] {
        let started = Instant::now();
        let asked = lab.preset(preset).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{preset}");
        let Outcome::Failed(failure) = &asked.seen.outcome else {
            panic!("{preset}: {:?}", asked.seen)
        };
        assert_eq!(
            (failure.kind, &*failure.message),
            (FailureKind::Timeout, message.as_str()),
            "{preset}"
        );
        assert_eq!(asked.times, 1, "{preset}");
    }
}

/// Sends `head`, then `piece` again and again until the client hangs up or `most` bytes are gone.
/// Returns its URL and the number of bytes that it got rid of.
fn flood(head: &'static str, piece: &'static [u8], most: u64) -> (String, Arc<AtomicU64>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that little of the flood is in the kernel's hands, whatever this machine grants others.
    socket.set_send_buffer_size(64 * 1024).expect("a size");
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(anywhere).expect("a port");
    let listener = socket.listen(16).expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let mut flowing = connection.write_all(head.as_bytes()).await.is_ok();
            while flowing && count.load(Ordering::Relaxed) < most {
                flowing = connection.write_all(piece).await.is_ok();
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
    });
    (url, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_flood_is_left_to_the_server_whatever_its_form() {
    const GIB: u64 = 1024 * 1024 * 1024;
    // The body's bound, and what the kernel and the client's buffers hold.
    const BUFFERED: u64 = 4 * 1024 * 1024;
    const PIECE: &[u8] = &[b' '; 64 * 1024];
    /// The same as a chunk of 64 KiB.
    static CHUNK: LazyLock<Vec<u8>> =
        LazyLock::new(|| [&b"10000\r\n"[..], PIECE, b"\r\n"].concat());
    let lab = Lab::new().await;
    for (name, head, piece) in [
        (
            "announced",
            "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
            PIECE,
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &CHUNK,
        ),
        ("no length", "HTTP/1.1 200 OK\r\n\r\n", PIECE),
        (
            "packed",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            PIECE,
        ),
        (
            "error",
            "HTTP/1.1 500 Oh\r\nContent-Length: 1073741824\r\n\r\n",
            PIECE,
        ),
        ("header", "HTTP/1.1 200 OK\r\nX: ", PIECE),
    ] {
        let (url, sent) = flood(head, piece, GIB);
        let me = given_token(&lab.client, &url, TOKEN);
        let seen = lab.client.query(&me, PROJECT, "flooded").await;
        let host = url.replace("http://", "");
        let Outcome::Failed(failure) = &seen.outcome else {
            panic!("{name}: {seen:?}")
        };
        match name {
            "error" => assert_eq!(seen.outcome, passing(&host, "500")),
            "header" => assert_eq!(failure.kind, FailureKind::Network, "{failure:?}"),
            _ => assert_eq!(
                (failure.kind, &*failure.message),
                (
                    FailureKind::Malformed,
                    format!("the answer of {host} is longer than 256 KiB").as_str()
                ),
                "{name}"
            ),
        }
        // The server notices the end a moment later; what it could send until then counts.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent <= BUFFERED, "{name}: {sent} bytes");
    }
}

#[tokio::test]
async fn e10_each_preset_of_a_huge_answer_is_cut_and_asked_for_no_more_than_once() {
    let lab = Lab::new().await;
    for preset in ["one-gib", "endless", "gzip-bomb"] {
        let asked = lab.preset(preset).await;
        asked.assert_once(preset, &lab.host());
        let message = format!("the answer of {} is longer than 256 KiB", lab.host());
        assert_eq!(
            asked.seen.outcome,
            failed(FailureKind::Malformed, message),
            "{preset}"
        );
    }
}

/// The program's `query` with a token for `url`, in at most so many KiB of address space.
fn query(lab: &Lab, url: &str, job: &str, proxy: &str, space: Option<u32>) -> Output {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "clouds-{}-{job}.yaml",
        lab.host().replace([':', '.'], "-")
    ));
    let entry =
        format!("auth_type: token, auth: {{token: {TOKEN}}}, image_endpoint_override: '{url}'");
    std::fs::write(&file, format!("clouds: {{otc: {{{entry}}}}}")).expect("a file");
    let limit = space.map_or_else(String::new, |kib| format!("ulimit -v {kib} && "));
    let output = Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_image-export-operator"))
        .args(["query", "--allow-http", "--output", "json"])
        .args(["--project", PROJECT, "--job", job, "--clouds-yaml"])
        .arg(&file)
        .env_clear()
        .envs([("http_proxy", proxy), ("NO_PROXY", "")])
        .output()
        .expect("the program runs");
    let _ = std::fs::remove_file(file);
    output
}

/// What the program said about the poll.
fn classification(output: &Output) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    report["classification"].clone()
}

/// 240 MiB out of so little that it passes the bound on the packed body.
fn bomb() -> Answer {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let spaces = vec![b' '; 1024 * 1024];
    for _ in 0..240 {
        packed.write_all(&spaces).expect("memory");
    }
    let packed = packed.finish().expect("memory");
    assert!(packed.len() < 256 * 1024, "{}", packed.len());
    Answer::json(200, "")
        .header("Content-Encoding", "gzip")
        .body(packed)
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_gzip_bomb_goes_off_in_a_process_without_room_for_it() {
    // KiB: enough for the program, less than the bomb unpacked.
    const SPACE: u32 = 160 * 1024;
    let lab = Lab::new().await;
    lab.sim.put_job(Job::new(PROJECT, "harmless"));
    lab.sim.script_forever(key("bomb"), bomb());
    let url = lab.sim.url();
    let output = query(&lab, &url, "harmless", "", Some(SPACE));
    assert_eq!(
        classification(&output)["category"],
        "answered",
        "{output:?}"
    );
    let output = query(&lab, &url, "bomb", "", Some(SPACE));
    let message = format!("the answer of {} is longer than 256 KiB", lab.host());
    assert_eq!(classification(&output)["message"], message, "{output:?}");
}

#[tokio::test]
async fn e11_an_unreadable_200_is_no_answer_and_a_merely_odd_one_is() {
    let lab = Lab::new().await;
    let host = lab.host();
    for (preset, words) in [
        ("empty", "is not JSON"),
        ("truncated-json", "is not JSON"),
        ("html", "is not JSON"),
        ("bad-utf8", "is not JSON"),
        ("nan", "is not JSON"),
        ("deep", "is not JSON"),
        ("json-array", "is not a JSON object"),
    ] {
        lab.assert_malformed_preset(preset, words).await;
    }
    let asked = lab.preset("cut").await;
    asked.assert_once("cut", &host);
    let message = format!("the answer of {host} broke off");
    assert_eq!(asked.seen.outcome, failed(FailureKind::Network, message));

    for (preset, state) in [
        ("bom", JobState::Success),
        // RUNNING, then SUCCESS: the last one counts.
        ("duplicate-keys", JobState::Success),
    ] {
        let asked = lab.preset(preset).await;
        assert_eq!(asked.answer().state, state, "{preset}");
    }
}

#[tokio::test]
async fn e12_lengths_that_do_not_fit_neither_answer_nor_spoil_the_next_answer() {
    let lab = Lab::impatient().await;
    let host = lab.host();
    for (preset, kind, message) in [
        (
            "length-too-long",
            FailureKind::Network,
            format!("the answer of {host} broke off"),
        ),
        // What is left over is a SUCCESS of this very job.
        (
            "length-too-short",
            FailureKind::Malformed,
            format!("the answer of {host} is not JSON"),
        ),
        (
            "second-answer",
            FailureKind::Malformed,
            format!("the answer of {host} has no job_id"),
        ),
    ] {
        lab.sim.script(key(preset), [Answer::preset(preset)]);
        lab.sim
            .script_forever(key(preset), Answer::preset("running"));
        let me = lab.given_token();
        let asked = lab.ask(&me, preset).await;
        asked.assert_once(preset, &host);
        assert_eq!(asked.seen.outcome, failed(kind, message), "{preset}");
        let next = lab.ask(&me, preset).await;
        assert_eq!(next.answer().state, JobState::Running, "{preset}");
    }
}

#[tokio::test]
async fn e12_an_answer_that_is_no_http_is_asked_for_once_more_on_a_fresh_connection() {
    let lab = Lab::impatient().await;
    let host = lab.host();
    for preset in ["length-twice", "no-http", "closed", "huge-head"] {
        let asked = lab.preset(preset).await;
        let message = format!("{host} broke the connection without an answer");
        assert_eq!(
            asked.seen.outcome,
            failed(FailureKind::Network, message),
            "{preset}"
        );
        assert_eq!((asked.times, &asked.seen.endpoint), (2, &None), "{preset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e14_a_proxy_that_is_down_is_trouble_of_those_behind_it_alone() {
    let lab = Lab::new().await;
    lab.sim.put_job(Job::new(PROJECT, "loopback"));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", port.local_addr().expect("an address"));
    drop(port);

    let output = query(&lab, "http://ims.example.com", "behind", &nobody, None);
    let said = classification(&output);
    assert_eq!(said["category"], "network", "{output:?}");
    assert_eq!(
        said["message"],
        "ims.example.com cannot be reached: connection refused"
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains(TOKEN));

    // No proxy can reach this machine's own addresses.
    let output = query(&lab, &lab.sim.url(), "loopback", &nobody, None);
    assert_eq!(classification(&output)["category"], "answered");
    assert_eq!(lab.sim.counters().polls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e14_a_proxy_that_answers_for_itself_is_not_taken_for_the_cloud() {
    // The simulator, spoken to as a proxy.
    let lab = Lab::new().await;
    let proxy = lab.sim.url();
    for (job, answer, category) in [
        ("wants-login", Answer::preset("status-407"), "http_error"),
        ("lost-it", Answer::preset("bad-gateway"), "http_error"),
        ("wall", Answer::preset("html"), "malformed"),
        ("timeout", Answer::preset("gateway-timeout"), "http_error"),
    ] {
        lab.sim.script_forever(key(job), answer);
        let output = query(&lab, "http://ims.example.com", job, &proxy, None);
        assert_eq!(classification(&output)["category"], category, "{job}");
        assert_eq!(lab.sim.polls(&key(job)), 1, "{job}");
    }
}
