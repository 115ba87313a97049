//! The metrics, one list. All of them derive from receipts, away from the
//! request path, but for the gauges, which are read when somebody looks.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::model::ids::FunctionId;
use crate::model::invocation::{Outcome, Receipt};

/// Most functions that have series of their own; the others share those of
/// [`OTHER_FUNCTIONS`]. A scrape of that many is some 25 MB.
pub const FUNCTIONS_MAX: usize = 10_000;
/// The label of functions beyond [`FUNCTIONS_MAX`]; no function can be named so.
pub const OTHER_FUNCTIONS: &str = "_other";
/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the duration histogram's buckets, in seconds.
pub const DURATION_BUCKETS_SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Values that are read when metrics are rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Invocations that run now.
    pub invocations_running: u64,
    /// Functions that exist now.
    pub functions: u64,
    /// Slots of the engines' pools in use: instances, memories, tables, stacks.
    pub pool_slots_in_use: u64,
    /// Memory of guests that counts against the host's bound, in bytes.
    pub guest_memory_bytes: u64,
}

type Seconds = Counter<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    outcome: OutcomeLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct OutcomeLabel(Outcome);

impl EncodeLabelValue for OutcomeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

/// The series of one function, found once: observing takes one look-up.
struct Series {
    label: String,
    requests: HashMap<Outcome, Counter>,
    duration: Histogram,
    cold_starts: Counter,
    cpu: Seconds,
}

/// By function; None is where no route matched.
#[derive(Default)]
struct ByFunction {
    known: HashMap<Option<FunctionId>, Series>,
    /// Of the functions beyond [`FUNCTIONS_MAX`], together.
    other: Option<Series>,
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    cold_starts: Family<FunctionLabel, Counter>,
    cpu: Family<FunctionLabel, Seconds>,
    receipts_lost: Counter,
    invocations_running: Gauge,
    functions: Gauge,
    pool_slots_in_use: Gauge,
    guest_memory: Gauge,
    gauges: OnceLock<Box<dyn Fn() -> Gauges + Send + Sync>>,
    series: Mutex<ByFunction>,
    functions_max: usize,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with_functions_max(FUNCTIONS_MAX)
    }
}

impl Metrics {
    fn with_functions_max(functions_max: usize) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let (cold_starts, cpu) = (Family::default(), Family::default());
        let receipts_lost = Counter::default();
        let (invocations_running, functions) = (Gauge::default(), Gauge::default());
        let (pool_slots_in_use, guest_memory) = (Gauge::default(), Gauge::default());
        // The library adds the "_total" of counters.
        let help = "Requests by how they ended";
        registry.register("whit_requests", help, Family::clone(&requests));
        let help = "Time from a request's arrival to the last byte of its response";
        registry.register("whit_request_duration_seconds", help, Family::clone(&durations));
        let help = "Requests whose revision had to be loaded from disk";
        registry.register("whit_cold_starts", help, Family::clone(&cold_starts));
        let help = "CPU time of guests";
        registry.register("whit_cpu_seconds", help, Family::clone(&cpu));
        let help = "Receipts that could not be recorded, and so are in no other metric or on no \
                    disk";
        registry.register("whit_receipts_lost", help, Counter::clone(&receipts_lost));
        let help = "Invocations that run now";
        registry.register("whit_invocations_running", help, Gauge::clone(&invocations_running));
        registry.register("whit_functions", "Functions that exist", Gauge::clone(&functions));
        let help = "Slots of the engines' pools in use: instances, memories, tables, stacks";
        registry.register("whit_pool_slots_in_use", help, Gauge::clone(&pool_slots_in_use));
        let help = "Memory of guests beyond what each may always have";
        registry.register("whit_guest_memory_bytes", help, Gauge::clone(&guest_memory));
        Self {
            registry,
            requests,
            durations,
            cold_starts,
            cpu,
            receipts_lost,
            invocations_running,
            functions,
            pool_slots_in_use,
            guest_memory,
            gauges: OnceLock::new(),
            series: Mutex::default(),
            functions_max,
        }
    }

    /// Where the gauges come from. Only the first call counts; without one they
    /// are 0.
    pub fn read_gauges_with(&self, read: impl Fn() -> Gauges + Send + Sync + 'static) {
        // A second source is a mistake in start-up code that costs nothing.
        let _ = self.gauges.set(Box::new(read));
    }

    /// The counter of receipts that were not recorded; its clones share it.
    #[must_use]
    pub fn receipts_lost(&self) -> &Counter {
        &self.receipts_lost
    }

    /// Adds one receipt. Meant for one thread at a time: callers wait for each
    /// other.
    pub fn observe(&self, receipt: &Receipt) {
        let mut by_function = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let ByFunction { known, other } = &mut *by_function;
        let room = known.len() < self.functions_max;
        // Two look-ups only the first time: `entry` would clone the name always.
        if !known.contains_key(&receipt.function) && room {
            let label = receipt.function.as_ref().map(FunctionId::to_string).unwrap_or_default();
            known.insert(receipt.function.clone(), self.new_series(label));
        }
        let series = match known.get_mut(&receipt.function) {
            Some(series) => series,
            None => other.get_or_insert_with(|| self.new_series(OTHER_FUNCTIONS.to_owned())),
        };
        let Series { label, requests, duration, cold_starts, cpu } = series;
        requests
            .entry(receipt.outcome)
            .or_insert_with(|| {
                let (function, outcome) = (label.clone(), OutcomeLabel(receipt.outcome));
                self.requests.get_or_create_owned(&RequestLabels { function, outcome })
            })
            .inc();
        duration.observe(seconds(receipt.total_us));
        if receipt.cold {
            cold_starts.inc();
        }
        cpu.inc_by(seconds(receipt.cpu_us));
    }

    fn new_series(&self, label: String) -> Series {
        let function = FunctionLabel { function: label.clone() };
        Series {
            label,
            requests: HashMap::new(),
            duration: self.durations.get_or_create_owned(&function),
            cold_starts: self.cold_starts.get_or_create_owned(&function),
            cpu: self.cpu.get_or_create_owned(&function),
        }
    }

    /// Ends the series of a deleted function, so that it makes room for others.
    pub fn forget(&self, function: &FunctionId) {
        let mut by_function = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(series) = by_function.known.remove(&Some(function.clone())) else {
            return;
        };
        let function = FunctionLabel { function: series.label };
        self.durations.remove(&function);
        self.cold_starts.remove(&function);
        self.cpu.remove(&function);
        for outcome in series.requests.into_keys() {
            let (function, outcome) = (function.function.clone(), OutcomeLabel(outcome));
            self.requests.remove(&RequestLabels { function, outcome });
        }
    }

    /// All metrics in the text format, of type [`CONTENT_TYPE`]. Receipts that
    /// still wait for their thread are not in it: call
    /// [`super::receipts::ReceiptLog::flush`] before, where that matters.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(read) = self.gauges.get() {
            let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
            let values = read();
            self.invocations_running.set(gauge(values.invocations_running));
            self.functions.set(gauge(values.functions));
            self.pool_slots_in_use.set(gauge(values.pool_slots_in_use));
            self.guest_memory.set(gauge(values.guest_memory_bytes));
        }
        let mut text = String::new();
        // Writing to memory does not fail.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics were not encoded");
        }
        text
    }
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS_SECONDS)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years of microseconds")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::receipts::tests::{function, receipt};
    use super::*;

    #[test]
    fn everything_derives_from_receipts() {
        let metrics = Metrics::default();
        metrics.read_gauges_with(|| Gauges {
            invocations_running: 3,
            functions: 2,
            pool_slots_in_use: 7,
            guest_memory_bytes: 65_536,
        });
        let mut one = receipt(1, Some("hello"), Outcome::Ok);
        (one.cold, one.total_us, one.cpu_us) = (true, 60, 500_000);
        metrics.observe(&one);
        metrics.observe(&receipt(2, Some("hello"), Outcome::Trapped));
        metrics.observe(&receipt(3, None, Outcome::NoRoute));
        let mut elsewhere = receipt(4, Some("hello"), Outcome::Ok);
        elsewhere.function.as_mut().unwrap().tenant = "acme".parse().unwrap();
        metrics.observe(&elsewhere);
        metrics.receipts_lost().inc_by(5);
        let text = metrics.render();
        for line in [
            "# TYPE whit_requests counter",
            "whit_requests_total{function=\"hello\",outcome=\"ok\"} 1",
            "whit_requests_total{function=\"hello\",outcome=\"trapped\"} 1",
            "whit_requests_total{function=\"\",outcome=\"no_route\"} 1",
            "whit_requests_total{function=\"@acme/hello\",outcome=\"ok\"} 1",
            "whit_request_duration_seconds_bucket{le=\"0.00005\",function=\"hello\"} 0",
            "whit_request_duration_seconds_bucket{le=\"0.0001\",function=\"hello\"} 1",
            "whit_request_duration_seconds_bucket{le=\"30.0\",function=\"hello\"} 2",
            "whit_request_duration_seconds_count{function=\"hello\"} 2",
            "whit_cold_starts_total{function=\"hello\"} 1",
            "whit_cpu_seconds_total{function=\"hello\"} 0.50025",
            "whit_receipts_lost_total 5",
            "whit_invocations_running 3",
            "whit_functions 2",
            "whit_pool_slots_in_use 7",
            "whit_guest_memory_bytes 65536",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn functions_have_series_up_to_a_bound() {
        let metrics = Metrics::with_functions_max(2);
        for name in ["a", "b", "c", "d", "a"] {
            metrics.observe(&receipt(1, Some(name), Outcome::Ok));
        }
        let text = metrics.render();
        assert!(text.contains("whit_requests_total{function=\"a\",outcome=\"ok\"} 2\n"));
        assert!(text.contains("whit_requests_total{function=\"_other\",outcome=\"ok\"} 2\n"));
        assert!(!text.contains("\"c\""));
        metrics.forget(&function("a"));
        metrics.observe(&receipt(1, Some("c"), Outcome::Ok));
        let text = metrics.render();
        assert!(!text.contains("\"a\""), "{text}");
        assert!(text.contains("whit_requests_total{function=\"c\",outcome=\"ok\"} 1\n"));
    }
}
