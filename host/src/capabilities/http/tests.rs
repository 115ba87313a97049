//! What the hooks refuse, and what they tell the function's log.

use http_body_util::{BodyExt as _, Empty};
use tempfile::TempDir;

use super::*;
use crate::capabilities::log::LogSource;
use crate::engine::limits::Meter;
use crate::model::ids::{FunctionId, InvocationId, RevisionNumber};
use crate::telemetry::{Telemetry, TelemetryBounds};

struct Invocation {
    hooks: HttpHooks,
    telemetry: Arc<Telemetry>,
    function: FunctionId,
    _folder: TempDir,
}

fn invocation(allow: &[&str]) -> Invocation {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::open(folder.path(), TelemetryBounds::default()).unwrap();
    let function =
        FunctionId { tenant: "tenant".parse().unwrap(), name: "caller".parse().unwrap() };
    let source = LogSource {
        function: function.clone(),
        revision: RevisionNumber(1),
        invocation: InvocationId::new(1, 1),
    };
    let log = GuestLog::new(source, Arc::clone(&telemetry), Arc::new(Meter::default()), 1000);
    let allow: Vec<_> = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    let egress = Egress::new(
        &allow,
        &HostEgress::new(false, OwnListeners::default(), Arc::new(HopKey::unused())),
    );
    Invocation {
        hooks: HttpHooks::new(egress, Arc::new(log), Track::Sequential, 0),
        telemetry,
        function,
        _folder: folder,
    }
}

impl Invocation {
    async fn send(&mut self, method: &str, url: &str) -> String {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::builder().method(method).uri(url);
        let request = request.body(body).unwrap();
        let received = Box::new(std::future::ready(Ok(())));
        let sent = self.hooks.send_request(request, None, received);
        format!("{:?}", Box::into_pin(sent).await.err().unwrap())
    }

    fn log(&self) -> Vec<String> {
        let lines = self.telemetry.logs.tail(&self.function, 100, None);
        lines.into_iter().map(|line| line.text).collect()
    }
}

#[tokio::test]
async fn nothing_is_allowed_by_default() {
    let mut guest = invocation(&[]);
    let secret = "https://api.example.com/path?token=secret";
    assert_eq!(guest.send("GET", secret).await, "HttpRequestDenied");
    assert_eq!(guest.send("GET", "http://[::1]:9000/").await, "HttpRequestDenied");
    assert_eq!(
        guest.log(),
        [
            "outgoing request to https://api.example.com refused: add \"https://api.example.com\" to allow_hosts",
            "outgoing request to http://[::1]:9000 refused: add \"http://[::1]:9000\" to allow_hosts",
        ]
    );
}

#[tokio::test]
async fn addresses_and_requests_that_are_never_sent_are_told_apart() {
    let mut guest = invocation(&["http://*", "http://127.0.0.1", "http://localhost"]);
    for (method, url, expected) in [
        ("GET", "http://127.0.0.1/", "DestinationIpProhibited"),
        ("GET", "http://localhost./", "DestinationIpProhibited"),
        ("GET", "http://2130706433/", "DestinationIpProhibited"),
        ("GET", "http://169.254.169.254/latest/meta-data", "DestinationIpProhibited"),
        ("GET", "http://example.com@127.0.0.1/", "HttpRequestUriInvalid"),
        ("CONNECT", "http://example.com/", "HttpRequestMethodInvalid"),
        ("GET", "https://example.com/", "HttpRequestDenied"),
    ] {
        assert_eq!(guest.send(method, url).await, expected, "{method} {url}");
    }
    let log = guest.log();
    let address = "outgoing request to http://127.0.0.1 refused: it leads to an address that";
    assert!(log.iter().any(|line| line.starts_with(address)), "{log:?}");
}

#[tokio::test]
async fn an_invocation_may_send_so_many_and_one_line_says_so() {
    let mut guest = invocation(&["http://*"]);
    for _ in 0..32 {
        let answer = guest.send("GET", "http://10.0.0.5/").await;
        assert_eq!(answer, "DestinationIpProhibited");
    }
    for _ in 0..32 {
        let answer = guest.send("GET", "http://10.0.0.5/").await;
        assert_eq!(answer, "HttpRequestDenied");
    }
    let log = guest.log();
    assert_eq!(log.len(), 33);
    let last = "outgoing request refused: the limit is 32 for one invocation";
    assert_eq!(log.last().unwrap(), last);
}

#[test]
fn guests_keep_their_prefix_and_lose_what_is_ours() {
    let mut guest = invocation(&[]);
    let mut forbidden = |name: &str| guest.hooks.is_forbidden_header(&name.parse().unwrap());
    for name in ["host", "connection", "transfer-encoding", "x-whit-hops"] {
        assert!(forbidden(name), "{name}");
    }
    for name in ["x-forwarded-prefix", "cdn-loop", "accept"] {
        assert!(!forbidden(name), "{name}");
    }
}
