//! The tasks that requests run in: they are waited for when the host stops, and
//! can be cut off all at once.

use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections, and guests that go on after their response. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Not an async block, which would have room for the task twice.
        self.tracker.spawn(task.with_cancellation_token_owned(self.cut.clone()));
    }

    /// Waits until no task is left.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops every task at its next pause, and with it what it held: guests end,
    /// and their receipts are written.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}
