//! A brand-new sandbox for each request.

use std::sync::atomic::{AtomicU32, Ordering};

use tests::{Request, guests};

use crate::host;

const REQUESTS: u32 = 10_000;
const CLIENTS: usize = 4;

fn counter_answers_one(component: &[u8]) {
    let host = host().start();
    host.admin().deploy("counter", component);
    let left = AtomicU32::new(REQUESTS);
    let take = |left: &AtomicU32| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
            .is_ok()
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = host.connect();
                let request = Request::get("/counter/counter");
                while take(&left) {
                    connection.call(&request).assert_text("1\n");
                }
            });
        }
    });
    let served = "whit_requests_total{function=\"counter\",outcome=\"ok\"}";
    host.admin().metric_becomes(served, f64::from(REQUESTS));
}

#[test]
fn a_counter_answers_one_ten_thousand_times_http_02() {
    counter_answers_one(guests::http_02());
}

#[test]
fn a_counter_answers_one_ten_thousand_times_http_03() {
    counter_answers_one(guests::http_03());
}

#[test]
fn a_counter_answers_one_ten_thousand_times_cgi() {
    counter_answers_one(guests::cgi());
}

#[test]
fn memory_of_an_earlier_request_is_gone() {
    // Writes its whole memory; answers with how much of it was not zero before.
    let host = host().set("instances_max", 2).start();
    host.admin().deploy("dirt", &guests::wat("dirt"));
    let mut connection = host.connect();
    for _ in 0..200 {
        connection.call(&Request::get("/dirt/")).assert_text("clean");
    }
}
