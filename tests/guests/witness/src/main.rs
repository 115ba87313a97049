//! A CGI program that says which request it has seen: the number that a proxy has
//! given to it, and its target. It reads the body to its end. A request without a
//! number did not come from the proxy as one: that is a trap.

use std::env::var;
use std::io::{self, copy, sink, stdin};

fn main() -> io::Result<()> {
    let variable = |name| var(name).unwrap_or_default();
    let body_bytes = copy(&mut stdin(), &mut sink())?;
    let (id, target) = (variable("HTTP_X_PROXY_ID"), variable("REQUEST_URI"));
    assert!(!id.is_empty(), "no proxy has sent {target}");
    println!("X-Witness: {id}\nContent-Type: text/plain\n\n{target} {body_bytes}");
    Ok(())
}
