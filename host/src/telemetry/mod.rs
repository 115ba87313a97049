//! What is known about invocations afterwards: receipts, logs and metrics.
//!
//! The request path only hands over; threads of their own do the work. All
//! metrics derive from receipts.

pub mod clock;
pub mod logs;
pub mod metrics;
pub mod receipts;
pub mod sanitise;

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::model::ids::FunctionId;

use self::logs::{FunctionLogs, LogBounds};
use self::metrics::Metrics;
use self::receipts::{ReceiptBounds, ReceiptLog};

/// How much telemetry may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TelemetryBounds {
    /// Of receipts.
    pub receipts: ReceiptBounds,
    /// Of functions' logs.
    pub logs: LogBounds,
}

/// Receipts, logs and metrics of one host.
#[derive(Debug)]
pub struct Telemetry {
    /// One receipt for each invocation.
    pub receipts: ReceiptLog,
    /// What functions write.
    pub logs: FunctionLogs,
    /// What follows from the receipts.
    pub metrics: Arc<Metrics>,
}

impl Telemetry {
    /// Opens `receipts/` and `logs/` in the data folder and starts their threads.
    ///
    /// # Errors
    /// When the folders can not be made, read or written, or a thread can not
    /// be started.
    pub fn open(data_dir: &Path, bounds: TelemetryBounds) -> io::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::default());
        let receipts = data_dir.join("receipts");
        let receipts = ReceiptLog::open(&receipts, bounds.receipts, Arc::clone(&metrics))?;
        let logs = FunctionLogs::open(&data_dir.join("logs"), bounds.logs)?;
        Ok(Arc::new(Self { receipts, logs, metrics }))
    }

    /// Drops the log and the metrics of a function that is gone; its receipts
    /// stay. Blocks.
    pub fn forget(&self, function: &FunctionId) {
        self.logs.remove(function);
        self.metrics.forget(function);
    }

    /// Writes what is not written yet and ends the threads. Blocks; call it when
    /// nothing runs any more.
    pub fn close(&self) {
        self.logs.close();
        self.receipts.close();
    }
}

/// An error with everything below it, as one line: `a: b: c`.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::receipts::tests::receipt;
    use super::*;
    use crate::model::invocation::Outcome;

    #[test]
    fn closing_keeps_everything() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = TelemetryBounds::default();
        let telemetry = Telemetry::open(folder.path(), bounds).unwrap();
        let kept = receipt(1, Some("hello"), Outcome::Ok);
        telemetry.receipts.record(kept.clone());
        telemetry.close();
        telemetry.close();
        let telemetry = Telemetry::open(folder.path(), bounds).unwrap();
        assert_eq!(telemetry.receipts.get(kept.id), Some(kept));
        assert!(!telemetry.metrics.render().contains("whit_requests_total"), "counts restart");
    }
}
