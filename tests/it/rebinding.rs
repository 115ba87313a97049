//! A name whose owner changes its address between the check and the connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tests::network::{Network, PUBLIC};
use tests::{HostBuilder, Request, guests};

use crate::WHIT;

const REQUESTS: usize = 1000;
const PORT: u16 = 8000;
/// Requests on one connection, so that some find one in the pool and some do not.
const REQUESTS_PER_CONNECTION: usize = 3;

/// Starts to count the requests that come to an address, and answers them.
fn count_requests(address: &str) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((address, PORT)).expect("listen");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || answer(&connection, &counted));
        }
    });
    count
}

fn answer(connection: &TcpStream, counted: &AtomicUsize) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    for _ in 0..REQUESTS_PER_CONNECTION {
        // A head without a body.
        if !lines.by_ref().any(|line| line.is_empty()) {
            return;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let mut output = connection;
        if output.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").is_err() {
            return;
        }
    }
}

/// A name server, for which every name has a public address, the next time that
/// of this machine, and then both, the bad one first. Nothing may be kept.
fn serve_names() -> [Arc<AtomicUsize>; 3] {
    let public: Ipv4Addr = PUBLIC.parse().expect("an address");
    let answers = [vec![public], vec![Ipv4Addr::LOCALHOST], vec![Ipv4Addr::LOCALHOST, public]];
    let given: [Arc<AtomicUsize>; 3] = std::array::from_fn(|_| Arc::default());
    let socket = UdpSocket::bind("127.0.0.1:53").expect("the port of names");
    let counts = given.clone();
    std::thread::spawn(move || {
        let mut turn = 0;
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let query = &query[..length];
            let is_for_ipv4 = is_for_ipv4(query);
            let addresses = if is_for_ipv4 { answers[turn].as_slice() } else { &[] };
            if is_for_ipv4 {
                counts[turn].fetch_add(1, Ordering::SeqCst);
                turn = (turn + 1) % answers.len();
            }
            let _ = socket.send_to(&response(query, addresses), client);
        }
    });
    given
}

/// RFC 1035, 4.1.2: after the head of 12 bytes a name, its end, type and class.
fn question(query: &[u8]) -> &[u8] {
    let name = query[12..].iter().position(|byte| *byte == 0).expect("the end of the name");
    &query[12..12 + name + 5]
}

fn is_for_ipv4(query: &[u8]) -> bool {
    question(query).ends_with(&[0, 1, 0, 1])
}

fn response(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let count = u8::try_from(addresses.len()).expect("few");
    // A response, to be recursive as asked, without an error; one question.
    let mut response = [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]].concat();
    response.extend_from_slice(question(query));
    for address in addresses {
        // The name in the question, an address of the internet, for 0 seconds.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        response.extend(address.octets());
    }
    response
}

#[test]
fn a_name_that_changes_its_address_leads_nowhere_forbidden() {
    let Some(network) = Network::new() else { return };
    network.enter();
    let (allowed, forbidden) = (count_requests(PUBLIC), count_requests("127.0.0.1"));
    let names = serve_names();
    let inside = network.inside(WHIT);
    let host = HostBuilder::new(inside.to_str().expect("a path")).start();
    let spec = json!({ "allow_hosts": [format!("http://rebound.test:{PORT}")] });
    host.admin().deploy_with_spec("f", guests::http_02(), &spec);

    let call = Request::get("/f/call")
        .header("x-call-authority", &format!("rebound.test:{PORT}"))
        .header("x-call-paths", "/");
    let (mut good, mut refused) = (0, 0);
    for _ in 0..REQUESTS {
        let answer = host.call(&call);
        match answer.text().as_str() {
            "good" => good += 1,
            text => {
                assert!(text.contains("DestinationIpProhibited"), "{} {text}", answer.status());
                refused += 1;
            }
        }
    }
    assert_eq!(forbidden.load(Ordering::SeqCst), 0, "requests went where they must not");
    assert_eq!((allowed.load(Ordering::SeqCst), good + refused), (good, REQUESTS));
    // It was tempted in all ways.
    let given = names.map(|count| count.load(Ordering::SeqCst));
    assert!(given.iter().all(|count| *count > 50) && refused > 50, "{given:?}, {refused}");
    println!("{given:?} answers of the name server, {good} requests, {refused} refused");
}
