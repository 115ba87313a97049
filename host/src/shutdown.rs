//! The end of a host: told by a signal, bounded by a deadline.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::invoke::tasks::Tasks;

/// Longest wait for what was cut off to be gone.
const CUT_TIME_MAX: Duration = Duration::from_secs(2);

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers can not be installed.
pub fn signalled() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Waits until both listeners have finished what they began, `time_max` at
/// most. What runs longer is cut off: its guests end, its receipts are written.
pub async fn drain(
    time_max: Duration,
    mut data: JoinHandle<()>,
    mut admin: JoinHandle<std::io::Result<()>>,
    tasks: &Tasks,
) {
    let finished = async {
        let _ = (&mut data).await;
        let _ = (&mut admin).await;
    };
    if tokio::time::timeout(time_max, finished).await.is_err() {
        tracing::warn!("requests were still running at the drain deadline; they are cut off");
        tasks.cut();
        admin.abort();
        // A guest that computes gives way at the next tick of the epoch.
        if tokio::time::timeout(CUT_TIME_MAX, tasks.finished()).await.is_err() {
            tracing::warn!("requests could not be cut off in time; their receipts are lost");
        }
    }
}
