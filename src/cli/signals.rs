//! SIGTERM and SIGINT: the first stops the operator in order, the second at once.

use std::{io, process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first signal cancels. The second ends the process, with 128 and its number as exit
/// code: 143 for SIGTERM, 130 for SIGINT.
pub(super) fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        first.cancel();
        let code = 128 + signals.next().await;
        tracing::warn!(code, "a second signal: the process ends at once");
        process::exit(code);
    });
    Ok(stop)
}

/// Nothing has to be tidied up, so both keep their default action. Only process 1, as in a container, would
/// ignore what it does not handle.
pub(super) fn end_on_signal_as_init() -> io::Result<()> {
    if process::id() == 1 {
        let mut signals = Signals::new()?;
        tokio::spawn(async move { process::exit(128 + signals.next().await) });
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        kind.as_raw_value()
    }
}
