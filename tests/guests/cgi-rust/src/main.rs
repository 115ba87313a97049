//! A CGI program: request in the environment and on standard input, response on standard output.
//! ../../README.md lists the routes.

use std::env;
use std::io::{self, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

static COUNTER: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<ExitCode> {
    let path = variable("PATH_INFO");
    let query = variable("QUERY_STRING");
    let number = |name| number(&query, name);
    match path.as_str() {
        "/" | "" => text("cgi-rust\n")?,
        "/counter" => {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
            text(&format!("{count}\n"))?;
        }
        "/echo" => echo()?,
        "/method" => text(&format!("{}\n", variable("REQUEST_METHOD")))?,
        "/url" => text(&format!("{}\n", variable("REQUEST_URI")))?,
        "/headers" => text(&headers())?,
        "/env" => text(&environment())?,
        "/stream" => {
            text("")?;
            for line in 1..=number("n") {
                println!("line {line}");
                stdout().flush()?;
                sleep(Duration::from_millis(100));
            }
        }
        "/big" => {
            text("")?;
            let mut left = number("bytes");
            while left > 0 {
                let length = left.min(64 * 1024);
                stdout().write_all(&vec![b'x'; length as usize])?;
                left -= length;
            }
        }
        "/status" => print!("Status: {}\n\n", number("code")),
        "/sleep" => {
            sleep(Duration::from_millis(number("ms")));
            text("slept\n")?;
        }
        "/spin" => spin(),
        "/alloc" => {
            allocate(number("mb"));
            text("allocated\n")?;
        }
        "/stderr" => {
            write_to_stderr(number("bytes"));
            text("written\n")?;
        }
        "/exit" => return Ok(ExitCode::from(number("code") as u8)),
        "/trap" => panic!("this guest was asked to trap"),
        "/no-answer" => {}
        "/short" => print!("Content-Length: 10\n\n12345"),
        "/long" => print!("Content-Length: 3\n\n12345"),
        _ => print!("Status: 404 Not Found\n\n"),
    }
    Ok(ExitCode::SUCCESS)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The head, sent at once, and a text.
fn text(text: &str) -> io::Result<()> {
    print!("Content-Type: text/plain\n\n{text}");
    stdout().flush()
}

fn echo() -> io::Result<()> {
    print!("Content-Type: application/octet-stream\n\n");
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = io::Read::read(&mut stdin(), &mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        stdout().write_all(&chunk[..length])?;
        stdout().flush()?;
    }
}

/// The headers as CGI gives them, `HTTP_X_NAME`, in the form that HTTP has, `x-name`.
fn headers() -> String {
    let lines = env::vars().filter_map(|(name, value)| {
        let name = name.strip_prefix("HTTP_")?.to_lowercase().replace('_', "-");
        Some(format!("{name}: {value}\n"))
    });
    lines.collect()
}

fn environment() -> String {
    let lines = env::vars().map(|(name, value)| format!("{name}={value}\n"));
    lines.collect()
}

fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn allocate(mebibytes: u64) {
    let mut memory = vec![0_u8; (mebibytes as usize) << 20];
    for byte in memory.iter_mut().step_by(4096) {
        *byte = 1;
    }
    std::hint::black_box(memory);
}

fn write_to_stderr(bytes: u64) {
    for start in (0..bytes).step_by(100) {
        let length = (bytes - start).min(100) as usize;
        eprintln!("{}", "e".repeat(length - 1));
    }
}

/// The number of this name in the query, or 0.
fn number(query: &str, name: &str) -> u64 {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}
