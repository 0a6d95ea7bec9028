//! Runs effects: one task each, with a timeout and with panics caught. Each task ends by sending
//! exactly one input, and its span says on whose behalf it logs.

use super::{
    Controller,
    credentials::{self, CredentialStore},
    poll,
    write::{self, Writer},
};
use crate::{
    contained::contain,
    telemetry::{LogGate, Metrics},
};
use image_export_cloud::{CloudClient, POLL_TIMEOUT};
use image_export_core::{
    CredentialError, CredentialRef, Deletion, Effect, FetchResult, Input, StatusWrite, WriteResult,
    WriteTicket,
};
use image_export_model::{Failure, Observation, Outcome};
use kube::Client;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
// Spans have the level of errors: whatever filter lets a line through shows its span too.
use tracing::{Instrument, Span, error_span};

pub(super) struct Runner {
    client: Client,
    cloud: CloudClient,
    credentials: Arc<CredentialStore>,
    writer: Writer,
    metrics: Arc<Metrics>,
    /// Bounds what polls and writes log about failures.
    gate: Arc<LogGate>,
    inputs: mpsc::UnboundedSender<Input>,
    /// Polls in flight.
    pub(super) polls: TaskTracker,
    /// Secret reads, writes, deletions and reads of objects in flight.
    pub(super) api_calls: TaskTracker,
}

impl Runner {
    pub(super) fn new(controller: Controller, inputs: mpsc::UnboundedSender<Input>) -> Self {
        let gate = Arc::new(LogGate::default());
        Self {
            writer: Writer {
                client: controller.client.clone(),
                metrics: controller.metrics.clone(),
                gate: gate.clone(),
            },
            client: controller.client,
            cloud: controller.cloud,
            credentials: Arc::default(),
            metrics: controller.metrics,
            gate,
            inputs,
            polls: TaskTracker::new(),
            api_calls: TaskTracker::new(),
        }
    }

    /// Starts the task of an effect.
    pub(super) fn start(&self, effect: Effect) {
        match effect {
            Effect::Poll(request) => {
                let credential = name(&request.credential);
                let span =
                    error_span!("poll", object = %request.key, %credential, job = %request.job);
                let ticket = request.ticket.clone();
                let poll = poll::poll(
                    self.cloud.clone(),
                    self.credentials.clone(),
                    self.metrics.clone(),
                    self.gate.clone(),
                    *request,
                );
                self.spawn(&self.polls, span, POLL_TIMEOUT, poll, move |result| {
                    let failed = |failure| Observation::of(Outcome::Failed(failure), 1);
                    Input::Polled(ticket, result.unwrap_or_else(failed))
                });
            }
            Effect::ReadCredential(reference) => {
                let span = error_span!("read_secret", credential = %name(&reference));
                let read = credentials::read(
                    self.client.clone(),
                    self.credentials.clone(),
                    self.metrics.clone(),
                    self.cloud.clone(),
                    reference.clone(),
                );
                let limit = credentials::TIMEOUT;
                self.spawn(&self.api_calls, span, limit, read, move |result| {
                    let result = result.map_err(CredentialError::Unavailable).flatten();
                    Input::CredentialRead(reference, result)
                });
            }
            Effect::WriteStatus(write) => {
                let StatusWrite {
                    ticket,
                    key,
                    precondition,
                    status,
                } = *write;
                let span = error_span!("write_status", object = %key);
                let write = self.writer.clone().write(key, precondition, status);
                self.spawn_write(span, ticket, write);
            }
            Effect::Delete(deletion) => {
                let Deletion {
                    ticket,
                    key,
                    uid,
                    version,
                } = *deletion;
                let span = error_span!("delete", object = %key);
                let delete = self.writer.clone().delete(key, uid, version);
                self.spawn_write(span, ticket, delete);
            }
            Effect::Fetch(ticket, key) => {
                let span = error_span!("fetch", object = %key);
                let fetch = write::fetch(self.client.clone(), key);
                let limit = write::TIMEOUT;
                self.spawn(&self.api_calls, span, limit, fetch, move |result| {
                    Input::Fetched(ticket, result.unwrap_or(FetchResult::Failed))
                });
            }
        }
    }

    fn spawn_write(
        &self,
        span: Span,
        ticket: WriteTicket,
        write: impl Future<Output = WriteResult> + Send + 'static,
    ) {
        let limit = write::TIMEOUT;
        self.spawn(&self.api_calls, span, limit, write, move |result| {
            Input::Wrote(ticket, result.unwrap_or(WriteResult::Unknown))
        });
    }

    /// Runs `task` for at most `limit`; `into_input` makes an input of its result, or of a timeout or
    /// a panic.
    fn spawn<T: Send + 'static>(
        &self,
        tasks: &TaskTracker,
        span: Span,
        limit: Duration,
        task: impl Future<Output = T> + Send + 'static,
        into_input: impl FnOnce(Result<T, Failure>) -> Input + Send + 'static,
    ) {
        let (inputs, metrics) = (self.inputs.clone(), self.metrics.clone());
        let task = async move {
            let result = contain(limit, task, || metrics.task_panicked()).await;
            // Fails only after the loop has ended, when nobody waits for the input.
            let _ = inputs.send(into_input(result));
        };
        tasks.spawn(task.instrument(span));
    }

    pub(super) fn is_polling(&self) -> bool {
        !self.polls.is_empty()
    }

    /// Returns when no poll is in flight. Cancel-safe.
    pub(super) async fn polled(&self) {
        // A closed tracker still accepts tasks; only then does `wait` return.
        self.polls.close();
        self.polls.wait().await;
    }

    pub(super) fn open_breakers(&self) -> usize {
        self.cloud.open_breakers()
    }

    /// Drops the credentials that the tracker no longer needs.
    pub(super) fn purge_credentials(&self) {
        self.credentials.purge();
    }
}

/// A credential in logs: where it is, never its content.
fn name(reference: &CredentialRef) -> String {
    let (secret, cloud) = (&reference.cloud.secret_name, &reference.cloud.cloud_name);
    format!(
        "{}/{}/{}",
        reference.namespace,
        secret.as_str(),
        cloud.as_str()
    )
}
