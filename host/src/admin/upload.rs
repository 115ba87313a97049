//! A component on its way in: streamed to the staging folder, counted as it
//! comes. Dropping any of this before its end leaves nothing behind.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header;

use super::JSON_BYTES_MAX;
use crate::http_error::{Code, Problem};
use crate::model::quantity::ByteSize;
use crate::model::spec::FunctionSpec;
use crate::storage::files::{Files, Staged};

/// Longest pause between two pieces of an upload.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// An upload that has arrived.
pub(super) struct Upload {
    /// The spec, where one came along.
    pub(super) spec: Option<FunctionSpec>,
    /// The component.
    pub(super) component: Staged,
}

/// Receives a wasm body, or `spec` and `component` as multipart/form-data.
pub(super) async fn receive(
    request: Request,
    files: &Files,
    component_bytes_max: u64,
) -> Result<Upload, Problem> {
    let headers = request.headers();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let multipart = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data"));
    // A multipart body holds a spec and boundaries besides.
    let envelope = if multipart { 2 * JSON_BYTES_MAX as u64 } else { 0 };
    if announced.is_some_and(|bytes| bytes > component_bytes_max.saturating_add(envelope)) {
        return Err(too_large("component", component_bytes_max));
    }
    if multipart {
        let form = Multipart::from_request(request, &()).await.map_err(|error| {
            let detail = format!("The multipart body can not be read: {}.", error.body_text());
            Problem::new(Code::InvalidRequest, detail)
        })?;
        return receive_form(form, files, component_bytes_max).await;
    }
    let body = request.into_body().into_data_stream();
    Ok(Upload { spec: None, component: stage(body, files, component_bytes_max).await? })
}

async fn receive_form(
    mut form: Multipart,
    files: &Files,
    component_bytes_max: u64,
) -> Result<Upload, Problem> {
    let (mut spec, mut component) = (None, None);
    while let Some(field) = in_time(form.next_field()).await?.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "component" if component.is_none() => {
                component = Some(stage(field, files, component_bytes_max).await?);
            }
            "spec" if spec.is_none() => {
                let text = collect(field).await?;
                spec = Some(FunctionSpec::from_json(&text)?);
            }
            _ => {
                let name: String = name.chars().take(80).collect();
                let detail = format!(
                    "The multipart field {name:?} is unknown or there twice; send `component` (the \
                     wasm file) and optionally `spec` (JSON), once each."
                );
                return Err(Problem::new(Code::InvalidRequest, detail));
            }
        }
    }
    let component = component.ok_or_else(|| {
        let detail = "The multipart body has no field `component` with the wasm file; to change \
                      only the spec, use PATCH.";
        Problem::new(Code::InvalidRequest, detail)
    })?;
    Ok(Upload { spec, component })
}

/// Writes the pieces of a component to the staging folder.
async fn stage<E: std::error::Error>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
    files: &Files,
    bytes_max: u64,
) -> Result<Staged, Problem> {
    let mut pieces = pin!(pieces);
    let mut staging = files.stage().await?;
    let mut bytes: u64 = 0;
    while let Some(piece) = in_time(pieces.next()).await? {
        let piece = piece.map_err(|error| broken(&error))?;
        bytes = bytes.saturating_add(piece.len() as u64);
        if bytes > bytes_max {
            return Err(too_large("component", bytes_max));
        }
        staging.write(&piece).await?;
    }
    Ok(staging.finish().await?)
}

async fn collect<E: std::error::Error>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Vec<u8>, Problem> {
    let mut pieces = pin!(pieces);
    let mut text = Vec::new();
    while let Some(piece) = in_time(pieces.next()).await? {
        let piece = piece.map_err(|error| broken(&error))?;
        if text.len() + piece.len() > JSON_BYTES_MAX {
            return Err(too_large("spec", JSON_BYTES_MAX as u64));
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

async fn in_time<T>(next: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(PAUSE_MAX, next).await.map_err(|_| {
        let seconds = PAUSE_MAX.as_secs();
        let detail = format!("Nothing came for {seconds} seconds; nothing was changed. Try again.");
        Problem::new(Code::RequestTimeout, detail)
    })
}

fn too_large(what: &str, bytes_max: u64) -> Problem {
    let max = ByteSize(bytes_max);
    let detail = format!("The {what} is larger than {max}, which is the most this host accepts.");
    Problem::new(Code::TooLarge, detail)
}

fn broken(error: &dyn std::error::Error) -> Problem {
    let detail = format!("The upload broke off: {error}. Nothing was changed; send it again.");
    Problem::new(Code::InvalidRequest, detail)
}
