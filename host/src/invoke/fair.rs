//! A bounded number of places for many functions, given out fairly: one line
//! for each function, and the lines take turns. However many of a function's
//! requests wait, another's first one is next but for one of theirs.
//!
//! It serves twice: the host's capacity ([`super::admission`]) and the
//! processors ([`super::turns`]). There it matters which thread waits: two places on
//! one thread are one that nobody uses.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// Whose line it is: an address or number that only this function has.
pub type Key = usize;

/// See the module. Made in an [`Arc`], because places know where they belong.
#[derive(Debug)]
pub struct FairQueue {
    /// Places that nobody has. While it is not empty, entering takes no lock.
    free: AtomicUsize,
    /// Who waits, in all lines; counted before it is looked for a place and read
    /// after one is given back, so that neither can miss the other.
    waiting: AtomicUsize,
    /// Most that wait in one line.
    line_max: usize,
    /// Of each worker: how many places it has been given and still needs.
    at_work: Box<[AtomicUsize]>,
    lines: Mutex<Lines>,
}

/// The thread that waits, by its number, if it is one of those that share the places.
pub type Worker = Option<usize>;

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Place>,
    worker: Worker,
}

#[derive(Debug, Default)]
struct Lines {
    /// Lines that are not empty.
    by_key: HashMap<Key, VecDeque<Waiter>>,
    /// Whose turn it is: every key of `by_key`, once.
    order: VecDeque<Key>,
}

impl Lines {
    fn push(&mut self, key: Key, waiter: Waiter) {
        let line = self.by_key.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            VecDeque::new()
        });
        line.push_back(waiter);
    }

    /// The first of the next line whose worker is free, or the first if none is. The
    /// line then goes to the end of the order.
    fn pop(&mut self, is_free: impl Fn(Worker) -> bool) -> Option<Waiter> {
        loop {
            let key = self.order.pop_front()?;
            let Some(line) = self.by_key.get_mut(&key) else {
                continue;
            };
            let at = line.iter().position(|waiter| is_free(waiter.worker));
            let waiter = line.remove(at.unwrap_or(0));
            if line.is_empty() {
                self.by_key.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if waiter.is_some() {
                return waiter;
            }
        }
    }

    fn is_full(&self, key: Key, line_max: usize) -> bool {
        self.by_key.get(&key).map_or(0, VecDeque::len) >= line_max
    }

    /// Clears away who has left a line; returns how many they were.
    fn clear(&mut self, key: Key) -> usize {
        let Some(line) = self.by_key.get_mut(&key) else {
            return 0;
        };
        let before = line.len();
        line.retain(|waiter| !waiter.sender.is_closed());
        before - line.len()
    }
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    /// None once there is nothing to give back.
    queue: Option<Arc<FairQueue>>,
    /// Whose it is, until it goes elsewhere.
    worker: Worker,
}

impl Place {
    fn of(queue: &Arc<FairQueue>, worker: Worker) -> Self {
        if let Some(at_work) = queue.at_work(worker) {
            at_work.fetch_add(1, Ordering::SeqCst);
        }
        Self { queue: Some(Arc::clone(queue)), worker }
    }

    /// Whether its worker has been given another one.
    #[must_use]
    pub fn shares_its_worker(&self) -> bool {
        let at_work = self.queue.as_ref().and_then(|queue| queue.at_work(self.worker));
        at_work.is_some_and(|at_work| at_work.load(Ordering::SeqCst) > 1)
    }

    /// From here on it is used on a thread of its own: its worker is free for another.
    pub fn leave_worker(&mut self) {
        let worker = self.worker.take();
        if let Some(at_work) = self.queue.as_ref().and_then(|queue| queue.at_work(worker)) {
            at_work.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_worker();
        if let Some(queue) = self.queue.take() {
            FairQueue::give_back(&queue);
        }
    }
}

/// Waits for a place; dropping it leaves the line.
#[derive(Debug)]
pub struct Waiting(oneshot::Receiver<Place>);

impl Future for Waiting {
    type Output = Option<Place>;

    /// None only if the queue itself is gone.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Place>> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

/// What came of entering.
#[derive(Debug)]
pub enum Entered {
    /// A place was free.
    Place(Place),
    /// There is a place in the line.
    Line(Waiting),
    /// The line is full.
    Full,
}

impl FairQueue {
    /// This many places, and this many that may wait in each line.
    #[must_use]
    pub fn new(places: usize, line_max: usize) -> Arc<Self> {
        Self::over(0, places, line_max)
    }

    /// The same for places that so many workers use, each one at a time.
    #[must_use]
    pub fn over(workers: usize, places: usize, line_max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: AtomicUsize::new(places),
            waiting: AtomicUsize::new(0),
            line_max,
            at_work: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            lines: Mutex::default(),
        })
    }

    fn at_work(&self, worker: Worker) -> Option<&AtomicUsize> {
        self.at_work.get(worker?)
    }

    fn is_free(&self, worker: Worker) -> bool {
        self.at_work(worker).is_none_or(|at_work| at_work.load(Ordering::SeqCst) == 0)
    }

    /// Places that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// A place, or one in the line of `key`, for this worker.
    pub fn enter(self: &Arc<Self>, key: Key, worker: Worker) -> Entered {
        if let Some(place) = self.try_enter(worker) {
            return Entered::Place(place);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_full(key, self.line_max) {
            self.waiting.fetch_sub(lines.clear(key), Ordering::SeqCst);
            if lines.is_full(key, self.line_max) {
                return Entered::Full;
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // One may have been given back since, by somebody who saw nobody wait.
        if self.take_free() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Entered::Place(Place::of(self, worker));
        }
        let (sender, receiver) = oneshot::channel();
        lines.push(key, Waiter { sender, worker });
        Entered::Line(Waiting(receiver))
    }

    /// A place if one is free.
    fn try_enter(self: &Arc<Self>, worker: Worker) -> Option<Place> {
        self.take_free().then(|| Place::of(self, worker))
    }

    fn take_free(&self) -> bool {
        let one_less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    fn give_back(queue: &Arc<Self>) {
        if queue.waiting.load(Ordering::SeqCst) == 0 {
            queue.free.fetch_add(1, Ordering::SeqCst);
            if queue.waiting.load(Ordering::SeqCst) == 0 || !queue.take_free() {
                return;
            }
        }
        // From here on the place is in our hands.
        loop {
            let next = {
                let mut lines = queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
                let next = lines.pop(|worker| queue.is_free(worker));
                if next.is_some() {
                    queue.waiting.fetch_sub(1, Ordering::SeqCst);
                } else {
                    queue.free.fetch_add(1, Ordering::SeqCst);
                }
                next
            };
            let Some(waiter) = next else {
                return;
            };
            match waiter.sender.send(Place::of(queue, waiter.worker)) {
                Ok(()) => return,
                // It has left: the place goes to the next, not back through here.
                Err(mut place) => {
                    place.leave_worker();
                    place.queue = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(entered: Entered) -> Place {
        match entered {
            Entered::Place(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn line(entered: Entered) -> Waiting {
        match entered {
            Entered::Line(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn ready(waiting: &mut Waiting) -> Option<Place> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(waiting).poll(&mut context) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        }
    }

    /// Takes the place of whoever has got one.
    fn first_ready(line: &mut Vec<Waiting>) -> Option<Place> {
        let (at, place) =
            line.iter_mut().enumerate().find_map(|(at, waiting)| Some((at, ready(waiting)?)))?;
        line.remove(at);
        Some(place)
    }

    #[test]
    fn lines_take_turns_however_long_they_are() {
        let queue = FairQueue::new(1, 100);
        let mut held = place(queue.enter(1, None));
        let mut crowd: Vec<Waiting> = (0..50).map(|_| line(queue.enter(1, None))).collect();
        let mut few: Vec<Waiting> = (0..3).map(|_| line(queue.enter(2, None))).collect();
        let mut served = Vec::new();
        for _ in 0..6 {
            drop(held);
            let from_crowd = first_ready(&mut crowd);
            let from_few = first_ready(&mut few);
            served.push(if from_crowd.is_some() { 1 } else { 2 });
            held = from_crowd.or(from_few).unwrap();
        }
        assert_eq!(served, [1, 2, 1, 2, 1, 2]);
        drop((held, crowd, few));
        assert_eq!((queue.free(), queue.waiting.load(Ordering::SeqCst)), (1, 0));
    }

    #[test]
    fn who_leaves_takes_nothing_along() {
        let queue = FairQueue::new(2, 3);
        let held = (place(queue.enter(1, None)), place(queue.enter(1, None)));
        let waits: Vec<Waiting> = (0..3).map(|_| line(queue.enter(7, None))).collect();
        assert!(matches!(queue.enter(7, None), Entered::Full));
        // Another's line has room, and those that left make room.
        let mut other = line(queue.enter(8, None));
        drop(waits);
        let mut again = line(queue.enter(7, None));
        drop(held);
        assert!(ready(&mut other).is_some());
        // Given a place and gone without taking it.
        drop(again.0.try_recv());
        assert_eq!((queue.free(), queue.waiting.load(Ordering::SeqCst)), (2, 0));
        assert!(queue.lines.lock().unwrap().by_key.is_empty());
    }

    #[test]
    fn a_place_goes_where_it_can_be_used() {
        let queue = FairQueue::over(2, 2, 100);
        let enter = |worker| queue.enter(1, Some(worker));
        let (first, second) = (place(enter(0)), place(enter(1)));
        let mut waits = [0, 0, 1, 0].map(|worker| line(enter(worker)));
        drop(second);
        let ahead = ready(&mut waits[2]).expect("the other worker has something to do");
        assert!(!ahead.shares_its_worker());
        drop(first);
        let mut next = ready(&mut waits[0]).expect("they are in line");
        next.leave_worker();
        drop(ahead);
        let free_again = ready(&mut waits[1]).expect("its worker is free");
        drop(next);
        // Nobody else waits.
        let too_many = ready(&mut waits[3]).expect("no place is unused");
        assert!(too_many.shares_its_worker() && free_again.shares_its_worker());
        drop(free_again);
        assert!(!too_many.shares_its_worker());
        drop(too_many);
        assert!(queue.is_free(Some(0)) && queue.is_free(Some(1)));
        assert_eq!((queue.free(), queue.waiting.load(Ordering::SeqCst)), (2, 0));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let queue = FairQueue::over(3, 2, 1000);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build();
        runtime.unwrap().block_on(async {
            let tasks: Vec<_> = (0..64)
                .map(|key| {
                    let queue = Arc::clone(&queue);
                    tokio::spawn(async move {
                        for round in 0..500 {
                            let place = match queue.enter(key % 5, Some(key % 3)) {
                                Entered::Place(place) => Some(place),
                                // Some lose their patience.
                                Entered::Line(waiting) if round % 7 == 0 => drop_soon(waiting),
                                Entered::Line(waiting) => waiting.await,
                                Entered::Full => panic!("there is room"),
                            };
                            if round % 3 == 0 {
                                tokio::task::yield_now().await;
                            }
                            drop(place);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!((queue.free(), queue.waiting.load(Ordering::SeqCst)), (2, 0));
        assert!((0..3).all(|worker| queue.is_free(Some(worker))));
    }

    fn drop_soon(mut waiting: Waiting) -> Option<Place> {
        ready(&mut waiting)
    }
}
