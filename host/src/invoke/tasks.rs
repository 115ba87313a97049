//! The tasks that requests run in, and the threads that run them: one for each
//! processor, with its own sockets, timers and queue of tasks.
//!
//! A runtime of many threads, as tokio has it, waits for all sockets on one of them.
//! While that thread is held up (the kernel has it wait for a processor that is
//! taken), the others sleep, whatever has arrived; and each has to be woken by it.
//! Here nothing passes between threads but what begins, which goes to the one with
//! the fewest tasks. That is where work is shared out: connections, the streams of
//! one connection, and what a guest does after its response. What computes for long
//! does not stay on these threads (`turns`).

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pace;

thread_local! {
    /// Which worker this thread is, if it is one.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the worker that this thread is, below the number of processors, if
/// it is one.
#[must_use]
pub fn own_worker() -> Option<usize> {
    OWN.get()
}

/// Connections, streams, and guests that go on after their response: they are waited
/// for when the host stops, and can be cut off all at once. Clones are the same.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    workers: Box<[Worker]>,
    all: TaskTracker,
    cut: CancellationToken,
}

/// A thread with a runtime of its own. It ends when the last clone of its [`Tasks`]
/// is dropped.
#[derive(Debug)]
struct Worker {
    runtime: Handle,
    tasks: TaskTracker,
    _keep: oneshot::Sender<()>,
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(format!("blocking-{index}"))
            .on_thread_park(pace::rest)
            .build()?;
        let handle = runtime.handle().clone();
        let (keep, ends) = oneshot::channel::<()>();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            OWN.set(Some(index));
            // Always an error: nothing is sent.
            let _ = runtime.block_on(ends);
            // What still blocks a thread of it is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, tasks: TaskTracker::new(), _keep: keep })
    }
}

impl Tasks {
    /// Starts as many threads as there are processors for this process.
    ///
    /// # Errors
    /// When a thread, or what it waits for sockets with, can not be had.
    pub fn on_each_processor() -> io::Result<Self> {
        Self::start(std::thread::available_parallelism()?)
    }

    fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let workers: io::Result<_> = (0..threads.get()).map(Worker::start).collect();
        let (all, cut) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self(Arc::new(Shared { workers: workers?, all, cut })))
    }

    /// Starts a task on the thread that has the fewest; on this one, if it is among
    /// those.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let own = own_worker();
        let is_busier =
            |(index, worker): &(usize, &Worker)| (worker.tasks.len(), own != Some(*index));
        let Shared { workers, all, cut } = &*self.0;
        let Some((_, worker)) = workers.iter().enumerate().min_by_key(is_busier) else {
            return;
        };
        // Not an async block, which would have room for the task twice.
        let task = task.with_cancellation_token_owned(cut.clone());
        all.spawn_on(worker.tasks.track_future(task), &worker.runtime);
    }

    /// Waits until no task is left.
    pub async fn finished(&self) {
        self.0.all.close();
        self.0.all.wait().await;
    }

    /// Drops every task at its next pause, and with it what it held: guests end,
    /// and their receipts are written.
    pub fn cut(&self) {
        self.0.cut.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread;

    use tokio::sync::mpsc;

    use super::*;

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn tasks_go_where_the_fewest_are_and_stay_where_that_is_the_same() {
        let tasks = Tasks::start(const { NonZeroUsize::new(2).unwrap() }).unwrap();
        let (sender, mut names) = mpsc::unbounded_channel();
        for _ in 0..4 {
            let sender = sender.clone();
            tasks.spawn(async move {
                sender.send(name()).unwrap();
                pending::<()>().await;
            });
        }
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..4 {
            seen.push(names.recv().await.unwrap());
        }
        seen.sort();
        assert_eq!(seen, ["worker-0", "worker-0", "worker-1", "worker-1"]);

        // Both have as many, but for the task that asks: then one more is elsewhere,
        // and the next one is equal again.
        let (inner, sender) = (tasks.clone(), sender);
        tasks.spawn(async move {
            let own = name();
            for is_own in [false, true, false, true] {
                let (sender, own) = (sender.clone(), own.clone());
                inner.spawn(async move {
                    let here = name();
                    sender.send(format!("{}", (here == own) == is_own)).unwrap();
                    pending::<()>().await;
                });
            }
            pending::<()>().await;
        });
        for _ in 0..4 {
            assert_eq!(names.recv().await.unwrap(), "true");
        }
        tasks.cut();
        tasks.finished().await;
    }

    #[tokio::test]
    async fn threads_end_with_their_tasks() {
        let tasks = Tasks::start(NonZeroUsize::MIN).unwrap();
        let (alive, gone) = oneshot::channel::<()>();
        tasks.spawn(async move {
            let _alive = alive;
            pending::<()>().await;
        });
        drop(tasks);
        assert!(gone.await.is_err(), "what ran on them is dropped");
    }
}
