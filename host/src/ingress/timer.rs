//! The timer that ends a connection which is silent between requests.
//!
//! hyper makes a timer for each request and drops it again. The runtime's timers
//! are under one lock, which all connections would then take twice for each request.
//! Here a connection has one timer, which is only moved on: that takes no lock.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::{Instant, sleep_until};

type Shared = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// The timer of one connection, for hyper. What it hands out is the same timer again:
/// only the last one may be waited for.
#[derive(Default)]
pub(super) struct ConnectionTimer(Shared);

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(std::time::Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { deadline: deadline.into(), timer: Arc::clone(&self.0) })
    }
}

struct Until {
    deadline: Instant,
    timer: Shared,
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Of one connection's task alone: nobody else waits for this lock.
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
        if timer.deadline() != self.deadline {
            timer.as_mut().reset(self.deadline);
        }
        timer.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_timer_is_moved_on_and_back() {
        let timer = ConnectionTimer::default();
        let start = std::time::Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut dropped = timer.sleep(Duration::from_secs(3600));
        let polled = std::future::poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        drop(dropped);
        for milliseconds in [20, 40, 10] {
            timer.sleep_until(at(milliseconds)).await;
            assert!(start.elapsed() >= Duration::from_millis(milliseconds));
        }
        assert!(start.elapsed() < Duration::from_secs(3600));
    }
}
