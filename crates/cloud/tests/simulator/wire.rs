//! What may become of an answer on its way.

use super::{Lab, PROJECT, TOKEN, failed, given_token, key, query};
use image_export_model::{FailureKind, JobState, Outcome};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::ims::Answer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

#[tokio::test]
async fn an_answer_that_trickles_or_never_comes_costs_one_time_out() {
    let lab = Lab::impatient();
    let host = lab.host();
    for (preset, message) in [
        ("hang", format!("{host} did not answer within 3 s")),
        ("drip-head", format!("{host} did not answer within 3 s")),
        (
            "drip",
            format!("the answer of {host} did not end within 3 s"),
        ),
    ] {
        let started = Instant::now();
        let polled = lab.poll_preset(preset).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{preset}");
        let Outcome::Failed(failure) = &polled.observation.outcome else {
            panic!("{preset}: {:?}", polled.observation)
        };
        assert_eq!(
            (failure.kind, &*failure.message),
            (FailureKind::Timeout, message.as_str()),
            "{preset}"
        );
        assert_eq!(polled.queries, 1, "{preset}");
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
async fn a_flood_is_not_read_whatever_its_form() {
    const GIB: u64 = 1024 * 1024 * 1024;
    // The body's bound, and what the kernel and the client's buffers hold.
    const BUFFERED: u64 = 4 * 1024 * 1024;
    const PIECE: &[u8] = &[b' '; 64 * 1024];
    /// The same as a chunk of 64 KiB.
    static CHUNK: LazyLock<Vec<u8>> =
        LazyLock::new(|| [&b"10000\r\n"[..], PIECE, b"\r\n"].concat());
    let lab = Lab::new();
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
        let seen = query(&lab.client, &me, PROJECT, "flooded").await;
        let host = url.replace("http://", "");
        let Outcome::Failed(failure) = &seen.outcome else {
            panic!("{name}: {seen:?}")
        };
        match name {
            "error" => assert_eq!(
                seen.outcome,
                failed(
                    FailureKind::Http,
                    format!("{host} answered 500 without a code of the image service")
                )
            ),
            "header" => assert_eq!(failure.kind, FailureKind::Network, "{failure:?}"),
            "packed" => assert_eq!(
                (failure.kind, &*failure.message),
                (
                    FailureKind::Malformed,
                    format!("the answer of {host} is not the gzip that it claims to be").as_str()
                )
            ),
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
async fn a_huge_answer_is_cut_and_requested_once() {
    let lab = Lab::new();
    for preset in ["one-gib", "endless", "gzip-bomb"] {
        let polled = lab.poll_preset(preset).await;
        polled.assert_once(preset, &lab.host());
        let message = format!("the answer of {} is longer than 256 KiB", lab.host());
        assert_eq!(
            polled.observation.outcome,
            failed(FailureKind::Malformed, message),
            "{preset}"
        );
    }
}

#[tokio::test]
async fn wrong_lengths_affect_neither_this_nor_the_next_answer() {
    let lab = Lab::impatient();
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
        let polled = lab.poll(&me, preset).await;
        polled.assert_once(preset, &host);
        assert_eq!(
            polled.observation.outcome,
            failed(kind, message),
            "{preset}"
        );
        let next = lab.poll(&me, preset).await;
        assert_eq!(next.answer().state, JobState::Running, "{preset}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_requested_once_more_on_a_fresh_connection() {
    let lab = Lab::impatient();
    let host = lab.host();
    let broke = "broke the connection without an answer";
    for (preset, problem) in [
        ("length-twice", broke),
        ("no-http", broke),
        ("closed", broke),
        ("huge-head", "sends more than 64 KiB of headers"),
    ] {
        let polled = lab.poll_preset(preset).await;
        let message = format!("{host} {problem}");
        assert_eq!(
            polled.observation.outcome,
            failed(FailureKind::Network, message),
            "{preset}"
        );
        assert_eq!(
            (polled.queries, &polled.observation.endpoint),
            (2, &None),
            "{preset}"
        );
    }
}
