//! JavaScript that asks another server and does not take all of the answer: the
//! invocation ends well and soon, the other server is let go, nothing stays.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::health::Health;
use tests::{Request, command, eventually, guests};
use whit::dev::languages::Language;

use crate::{WHIT, host};

/// A server that never comes to the end of most of its answers, and counts the
/// connections that are open.
struct Upstream {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(connection, &count);
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open }
    }

    fn all_left(&self, what: &str) {
        let none = || (self.open.load(Ordering::SeqCst) == 0).then_some(());
        eventually(&format!("the connections of {what} are closed"), none);
    }
}

/// Answers one request, and returns when the client has left.
fn serve(connection: TcpStream, open: &AtomicUsize) {
    let mut lines = BufReader::new(connection.try_clone().expect("a second handle"));
    let (mut first, mut line) = (String::new(), String::new());
    let _ = lines.read_line(&mut first);
    while lines.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let mut out = &connection;
    let mut say = |text: &str| out.write_all(text.as_bytes()).is_ok();
    match first.split_whitespace().nth(1).unwrap_or_default() {
        "/silent" => {}
        "/begun" => _ = say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun"),
        "/elsewhere" => {
            say("HTTP/1.1 302 Found\r\nLocation: /alone\r\nContent-Length: 1000\r\n\r\nbegun");
        }
        "/endless" => {
            say("HTTP/1.1 200 OK\r\n\r\n");
            while say(&"x".repeat(1 << 16)) {}
        }
        // Answered as soon as nobody else is here.
        "/alone" => {
            eventually("the others leave", || (open.load(Ordering::SeqCst) == 1).then_some(()));
            say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nalone");
        }
        path => panic!("nobody knows {path}"),
    }
    let _ = lines.read_to_end(&mut Vec::new());
}

/// What a function does with answers that it does not need, or no more.
const FUNCTION: &str = r#"
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const late = async () => { await sleep(50); return "late"; };
const named = (error) => error.name;

const ways = {
  unread: async (up) => String((await fetch(`${up}/begun`)).status),
  unreadEndless: async (up) => String((await fetch(`${up}/endless`)).status),
  half: async (up) => {
    const reader = (await fetch(`${up}/endless`)).body.getReader();
    return String((await reader.read()).value.length > 0);
  },
  brokenOff: async (up) => {
    for await (const piece of (await fetch(`${up}/endless`)).body) return String(piece.length > 0);
  },
  raced: (up) => Promise.race([fetch(`${up}/silent`), late()]),
  racedBody: async (up) => {
    const response = await fetch(`${up}/begun`);
    return Promise.race([response.text(), late()]);
  },
  forgotten: (up) => {
    fetch(`${up}/silent`);
    return "forgotten";
  },
  thrown: async (up) => {
    await fetch(`${up}/begun`);
    throw new Error("on purpose");
  },
  // From here on the connection is given back while the function goes on.
  brokenOffAlone: async (up) => {
    for await (const _ of (await fetch(`${up}/endless`)).body) break;
    return (await fetch(`${up}/alone`)).text();
  },
  cancelled: async (up) => {
    const reader = (await fetch(`${up}/begun`)).body.getReader();
    await reader.read();
    await reader.cancel();
    return (await fetch(`${up}/alone`)).text();
  },
  cancelledUnread: async (up) => {
    await (await fetch(`${up}/endless`)).body.cancel();
    return (await fetch(`${up}/alone`)).text();
  },
  cancelledWhileRead: async (up) => {
    const reader = (await fetch(`${up}/begun`)).body.getReader();
    await reader.read();
    const next = reader.read();
    await reader.cancel();
    return `${(await next).done} ${await (await fetch(`${up}/alone`)).text()}`;
  },
  aborted: async (up) => {
    const why = await fetch(`${up}/silent`, { signal: AbortSignal.timeout(20) }).catch(named);
    return `${why} ${await (await fetch(`${up}/alone`)).text()}`;
  },
  abortedBody: async (up) => {
    const response = await fetch(`${up}/begun`, { signal: AbortSignal.timeout(50) });
    const why = await response.text().catch(named);
    return `${why} ${await (await fetch(`${up}/alone`)).text()}`;
  },
  redirected: async (up) => (await fetch(`${up}/elsewhere`)).text(),
};

export default async function (request) {
  const { searchParams } = new URL(request.url);
  const [up, way] = [searchParams.get("up"), searchParams.get("way")];
  if (way === "passed") return new Response((await fetch(`${up}/endless`)).body);
  if (way === "notTaken") {
    const reader = request.body.getReader();
    await reader.read();
    await reader.cancel();
    return new Response("not taken");
  }
  if (way === "notBegun") {
    await request.body.cancel();
    return new Response("not begun");
  }
  return new Response(await ways[way](up));
}
"#;

#[test]
fn what_is_not_taken_of_an_answer_is_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start();
    let address = upstream.address;
    // An end by the wall time would come too late for this test.
    let manifest = format!(
        "[functions.taker]\nallow_hosts = [\"http://{address}\"]\ntimeout = \"10m\"\nrequest_body = \"64MiB\"\n"
    );
    fs::write(folder.path().join("whit.toml"), manifest).expect("write");
    fs::write(folder.path().join("index.js"), FUNCTION).expect("write");
    let host = host().set("private_egress", true).start();
    {
        let _turn = guests::take_turns();
        guests::get_ready(Language::JavaScript);
        let mut deploy = command::command(WHIT, host.folder());
        command::run(deploy.arg("deploy").current_dir(folder.path())).succeeded();
    }
    let health = Health::watch(&host);
    let path = |way: &str| format!("/taker/?up=http://{address}&way={way}");
    for (way, expected) in [
        ("unread", "200"),
        ("unreadEndless", "200"),
        ("half", "true"),
        ("brokenOff", "true"),
        ("raced", "late"),
        ("racedBody", "late"),
        ("forgotten", "forgotten"),
        ("thrown", "the function failed\n"),
        ("brokenOffAlone", "alone"),
        ("cancelled", "alone"),
        ("cancelledUnread", "alone"),
        ("cancelledWhileRead", "true alone"),
        ("aborted", "TimeoutError alone"),
        ("abortedBody", "TimeoutError alone"),
        ("redirected", "alone"),
    ] {
        let answer = host.get(&path(way));
        let log = || host.admin().logs("taker", "");
        assert_eq!(answer.text(), expected, "{way}: {:?}", log());
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "ok", "{way}: {receipt}");
        upstream.all_left(way);
        health.check(&host, way);
    }
    // What is passed on ends with the client.
    let mut connection = host.connect();
    connection.send(&Request::get(&path("passed"))).expect("send");
    assert_eq!(connection.head().expect("a head").status, 200);
    drop(connection);
    upstream.all_left("passed");
    // And so it is with what the function does not take of its own request.
    for (way, expected) in [("notTaken", "not taken"), ("notBegun", "not begun")] {
        let answer = host.call(&Request::post(&path(way), vec![b'x'; 20 << 20]));
        answer.assert_text(expected);
        let receipt = host.admin().receipt(&answer.request_id());
        assert_eq!(receipt["outcome"], "ok", "{way}: {receipt}");
    }
    health.check(&host, "all ways");
}
