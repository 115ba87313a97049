//! As much of an async runtime as a handler needs: one task, timers, and outgoing requests.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Runs a future to its end. An `async` handler is run by this.
///
/// What can be awaited: [`sleep`], a [`crate::PendingResponse`], and anything made of these with a
/// crate such as `futures`. Libraries that bring their own runtime, such as tokio's sockets and
/// timers, do not work here.
///
/// # Panics
/// When nothing is left that could wake the future.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal::new());
    let waker = Waker::from(signal.clone());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => signal.wait(),
        }
    }
}

/// Waits without keeping other parts of an async handler from running. In a function that is not
/// async, use [`std::thread::sleep`].
pub async fn sleep(duration: Duration) {
    #[cfg(target_arch = "wasm32")]
    crate::wasi::readiness::Readiness::after(duration).await;
    #[cfg(not(target_arch = "wasm32"))]
    std::thread::sleep(duration);
}

/// Says that the future should be polled again.
struct Signal {
    woken: AtomicBool,
    #[cfg(not(target_arch = "wasm32"))]
    thread: std::thread::Thread,
}

impl Signal {
    fn new() -> Self {
        Signal {
            woken: AtomicBool::new(false),
            #[cfg(not(target_arch = "wasm32"))]
            thread: std::thread::current(),
        }
    }

    fn take(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    #[cfg(target_arch = "wasm32")]
    fn wait(&self) {
        use crate::wasi::readiness::{self, Patience};
        if self.take() {
            // A future that wakes itself again and again must not keep the others from seeing
            // that they are ready.
            readiness::wake(Patience::Now);
        } else {
            while !self.take() {
                readiness::wake(Patience::UntilOne);
            }
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn wait(&self) {
        while !self.take() {
            std::thread::park();
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        #[cfg(not(target_arch = "wasm32"))]
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_wakes_itself_goes_on() {
        let mut turns = 0;
        let output = block_on(std::future::poll_fn(|context| {
            turns += 1;
            if turns == 3 {
                return Poll::Ready("done");
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!((output, turns), ("done", 3));
    }

    #[test]
    fn another_thread_can_wake() {
        let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
        std::thread::spawn(move || receiver.recv().unwrap().wake());
        let mut first = true;
        block_on(std::future::poll_fn(|context| {
            if std::mem::take(&mut first) {
                sender.send(context.waker().clone()).unwrap();
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
    }
}
