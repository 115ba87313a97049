//! Guests that mean harm, made from templates: what is common to them stands
//! here once, what each does stands where it is tested.

use crate::guests;

/// WASI preview 1 as commands import it: name, parameters.
const PREVIEW_1: [(&str, &str); 9] = [
    ("fd_write", "i32 i32 i32 i32"),
    ("fd_read", "i32 i32 i32 i32"),
    ("fd_close", "i32"),
    ("fd_renumber", "i32 i32"),
    ("random_get", "i32 i32"),
    ("clock_time_get", "i32 i64 i32"),
    ("poll_oneoff", "i32 i32 i32 i32"),
    ("sched_yield", ""),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
];

/// `wasi:http` 0.2 and what goes with it, as core modules import it: interface,
/// name, the name it has in the guest, parameters and result.
const HTTP_02: [(&str, &str, &str, &str); 13] = [
    ("wasi:http/types", "[constructor]fields", "fields", "(result i32)"),
    ("wasi:http/types", "[static]fields.from-list", "from-list", "(param i32 i32 i32)"),
    ("wasi:http/types", "[method]fields.append", "append", "(param i32 i32 i32 i32 i32 i32)"),
    ("wasi:http/types", "[resource-drop]fields", "drop-fields", "(param i32)"),
    ("wasi:http/types", "[method]incoming-request.path-with-query", "path", "(param i32 i32)"),
    ("wasi:http/types", "[method]incoming-request.headers", "headers", "(param i32) (result i32)"),
    ("wasi:http/types", "[constructor]outgoing-response", "response", "(param i32) (result i32)"),
    (
        "wasi:http/types",
        "[method]outgoing-response.set-status-code",
        "status",
        "(param i32 i32) (result i32)",
    ),
    ("wasi:http/types", "[method]outgoing-response.body", "body", "(param i32 i32)"),
    (
        "wasi:http/types",
        "[static]response-outparam.set",
        "set",
        "(param i32 i32 i32 i32 i64 i32 i32 i32 i32)",
    ),
    ("wasi:clocks/monotonic-clock", "subscribe-duration", "timer", "(param i64) (result i32)"),
    ("wasi:io/poll", "poll", "poll", "(param i32 i32 i32)"),
    ("wasi:random/random", "get-random-bytes", "random", "(param i64 i32)"),
];

/// What never ends and does nothing.
pub const SPIN: &str = "(loop $again (br $again)) unreachable";

/// Guests that spin, wherever a guest's code can run.
#[must_use]
pub fn spinners() -> [(&'static str, Vec<u8>); 7] {
    let spin = "(func $spin (loop $again (br $again)))";
    let start = format!("{spin} (start $spin)");
    let path = "(call $path (local.get $request) (i32.const 0)) unreachable";
    [
        ("cgi-start", guests::wat("start-spin")),
        ("http-start", http_02(REALLOC, &start, "")),
        ("http-realloc", http_02(SPIN, "", path)),
        ("http-handler", http_02(REALLOC, spin, "(call $spin)")),
        ("http3-start", http_03(&start, "i32.const 0", "i32.const 0")),
        ("http3-handler", http_03("", SPIN, "i32.const 0")),
        ("http3-callback", http_03("", "i32.const 1", SPIN)),
    ]
}

/// Guests that do one thing again and again which takes long: to so many pages of
/// memory, or to a table of 100,000.
#[must_use]
pub fn long_instructions(pages: u32) -> [(&'static str, Vec<u8>); 4] {
    let bytes = pages << 16;
    let looped = |work: String| {
        command(&format!(
            r#"(memory (export "memory") {pages}) (table $t 100000 funcref)
            (elem declare func $f) (func $f)
            (func (export "_start") (loop $again {work} (br $again)))"#
        ))
    };
    [
        ("fill", format!("(memory.fill (i32.const 0) (i32.const 7) (i32.const {bytes}))")),
        ("copy", format!("(memory.copy (i32.const 0) (i32.const 1) (i32.const {}))", bytes - 1)),
        ("table-fill", "(table.fill $t (i32.const 0) (ref.func $f) (i32.const 100000))".into()),
        ("table-copy", "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 99999))".into()),
    ]
    .map(|(name, work)| (name, looped(work)))
}

/// A command with these fields of a module besides its imports and a memory.
#[must_use]
pub fn command(fields: &str) -> Vec<u8> {
    let imports = PREVIEW_1.map(|(name, parameters)| {
        format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\"
                (func ${name} (param {parameters}) (result i32)))"
        )
    });
    guests::wat_text(&format!("(module {} {fields})", imports.concat()))
}

/// A command that does this, with a megabyte of memory.
#[must_use]
pub fn command_doing(body: &str) -> Vec<u8> {
    command(&format!(
        r#"(memory (export "memory") 16)
        (data (i32.const 16) "Content-Type: text/plain\0a\0adone")
        (func $say (param $at i32) (param $length i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $length))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func $done (call $say (i32.const 16) (i32.const 30)))
        (func (export "_start") (local $n i32) {body})"#
    ))
}

/// An http 0.2 guest whose handler does this, with `$request` and `$out`. Memory
/// for what it is given is taken from the end of its megabyte, as `realloc` says.
#[must_use]
pub fn http_02(realloc: &str, fields: &str, body: &str) -> Vec<u8> {
    let imports = HTTP_02.map(|(interface, name, own, kind)| {
        format!("(import \"{interface}@0.2.12\" \"{name}\" (func ${own} {kind}))")
    });
    guests::typed_text(
        "p2",
        "proxy",
        &format!(
            r#"(module {}
            (memory (export "memory") 16)
            {fields}
            (global $free (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param $old i32) (param i32 i32) (param $size i32)
                (result i32)
                {realloc})
            (func $answer (param $out i32) (param $fields i32)
                (call $set (local.get $out) (i32.const 0)
                    (call $response (local.get $fields))
                    (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0)))
            (func (export "wasi:http/incoming-handler@0.2.12#handle")
                (param $request i32) (param $out i32) (local $n i32)
                {body}))"#,
            imports.concat()
        ),
    )
}

/// A `realloc` that does what it should.
pub const REALLOC: &str = "(global.get $free)
    (global.set $free (i32.add (global.get $free)
        (i32.and (i32.add (local.get $size) (i32.const 15)) (i32.const -16))))";

/// An http 0.3 guest: what its handler does first, and what whenever it is called
/// back. Both leave what the guest wants next: 0 to exit, 1 to yield.
#[must_use]
pub fn http_03(fields: &str, start: &str, callback: &str) -> Vec<u8> {
    handler_03("", fields, start, callback)
}

fn handler_03(imports: &str, fields: &str, start: &str, callback: &str) -> Vec<u8> {
    guests::typed_text(
        "p3",
        "service",
        &format!(
            r#"(module
            (import "$root" "[waitable-set-new]" (func $waitable-set (result i32)))
            (import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
            {imports}
            (memory (export "memory") 16)
            {fields}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "[async-lift]wasi:http/handler@0.3.0#handle")
                (param $request i32) (result i32) {start})
            (func (export "[callback][async-lift]wasi:http/handler@0.3.0#handle")
                (param i32 i32 i32) (result i32) {callback}))"#
        ),
    )
}

/// What a 0.3 response is made of, as core modules import it: name, the name it
/// has in the guest, parameters and result.
const RESPONSE_03: [(&str, &str, &str); 8] = [
    ("[static]response.new", "response", "(param i32 i32 i32 i32 i32)"),
    ("[stream-new-0][static]response.new", "stream", "(result i64)"),
    (
        "[async-lower][stream-write-0][static]response.new",
        "write",
        "(param i32 i32 i32) (result i32)",
    ),
    ("[stream-drop-writable-0][static]response.new", "end", "(param i32)"),
    ("[future-new-1][static]response.new", "future", "(result i64)"),
    (
        "[async-lower][future-write-1][static]response.new",
        "resolve",
        "(param i32 i32) (result i32)",
    ),
    ("[future-drop-writable-1][static]response.new", "drop-future", "(param i32)"),
    (
        "[async-lower][future-read-2][static]response.new",
        "read-sent",
        "(param i32 i32) (result i32)",
    ),
];

/// An http 0.3 guest that has answered, with a body and trailers still to come,
/// when it does `then`; and what it does whenever it is called back. Both have
/// `$body`, `$trailers` and `$sent`, and leave what the guest wants next.
#[must_use]
pub fn answered_03(then: &str, callback: &str) -> Vec<u8> {
    let imports = RESPONSE_03.map(|(name, own, kind)| {
        format!("(import \"wasi:http/types@0.3.0\" \"{name}\" (func ${own} {kind}))")
    });
    let answer = "(local $both i64)
        (local.set $both (call $stream))
        (global.set $body (call $writer (local.get $both)))
        (i32.store (i32.const 8) (i32.wrap_i64 (local.get $both)))
        (local.set $both (call $future))
        (global.set $trailers (call $writer (local.get $both)))
        (call $response (call $fields) (i32.const 1) (i32.load (i32.const 8))
            (i32.wrap_i64 (local.get $both)) (i32.const 16))
        (global.set $sent (i32.load (i32.const 20)))
        (call $return (i32.const 0) (i32.load (i32.const 16)) (i32.const 0) (i64.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    let fields = r#"(global $body (mut i32) (i32.const 0))
        (global $trailers (mut i32) (i32.const 0))
        (global $sent (mut i32) (i32.const 0))
        (func $writer (param i64) (result i32)
            (i32.wrap_i64 (i64.shr_u (local.get 0) (i64.const 32))))
        (func $wait-for (param $what i32) (result i32) (local $set i32)
            (local.set $set (call $waitable-set))
            (if (local.get $what) (then (call $join (local.get $what) (local.get $set))))
            (i32.or (i32.const 2) (i32.shl (local.get $set) (i32.const 4))))
        (func $write-some (result i32)
            (call $write (global.get $body) (i32.const 65536) (i32.const 65536)))"#;
    let imports = format!(
        r#"{}
        (import "$root" "[waitable-join]" (func $join (param i32 i32)))
        (import "[export]wasi:http/handler@0.3.0" "[task-return]handle"
            (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))"#,
        imports.concat()
    );
    handler_03(&imports, fields, &format!("{answer} {then}"), callback)
}

/// A 0.3 command that calls so many instances besides its own, each of which waits
/// for an hour: a stack for each of them, if it gets them.
#[must_use]
pub fn sleepers(count: u32) -> Vec<u8> {
    // The last one is waited for.
    let each = |part: &dyn Fn(u32) -> String| (1..count).map(part).collect::<String>();
    let wait = "(func $wait async (param \"how-long\" u64))";
    guests::wat_text(&format!(
        r#"(component
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "wait-for" (func async (param "how-long" u64)))))
            (alias export $clock "wait-for" (func $wait))
            (component $sleeper
                (import "wait" {wait})
                (core func $wait (canon lower (func $wait)))
                (core module $m
                    (import "" "wait" (func $wait (param i64)))
                    (func (export "f") (call $wait (i64.const 3600000000000))))
                (core instance $i (instantiate $m
                    (with "" (instance (export "wait" (func $wait))))))
                (func (export "f") async (canon lift (core func $i "f"))))
            {sleepers}
            (component $main
                (import "f" (func $f async))
                {imports}
                (core module $m
                    {core_imports}
                    (import "" "f" (func $f))
                    (func (export "run") (result i32) {calls} (call $f) (i32.const 0)))
                (core func $f (canon lower (func $f)))
                {lowered}
                (core instance $i (instantiate $m
                    (with "" (instance (export "f" (func $f)) {core_arguments}))))
                (func (export "run") async (result (result)) (canon lift (core func $i "run"))))
            (instance $last (instantiate $sleeper (with "wait" (func $wait))))
            (instance $main (instantiate $main (with "f" (func $last "f")) {arguments}))
            (instance $run (export "run" (func $main "run")))
            (export "wasi:cli/run@0.3.0" (instance $run)))"#,
        sleepers = each(&|n| format!(
            "(instance $s{n} (instantiate $sleeper (with \"wait\" (func $wait))))\n"
        )),
        imports = each(&|n| format!("(import \"f{n}\" (func $f{n} async))\n")),
        core_imports = each(&|n| format!("(import \"\" \"f{n}\" (func $f{n} (result i32)))\n")),
        calls = each(&|n| format!("(drop (call $f{n}))\n")),
        lowered = each(&|n| format!("(core func $f{n} (canon lower (func $f{n}) async))\n")),
        core_arguments = each(&|n| format!("(export \"f{n}\" (func $f{n}))\n")),
        arguments = each(&|n| format!("(with \"f{n}\" (func $s{n} \"f\"))\n")),
    ))
}

/// A 0.3 command that does this, with what streams, futures and waiting are made
/// of as core functions.
#[must_use]
pub fn command_03(body: &str) -> Vec<u8> {
    guests::wat_text(&format!(
        r#"(component
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "wait-for" (func async (param "how-long" u64)))))
            (alias export $clock "wait-for" (func $wait))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (alias core export $memory "memory" (core memory $memory))
            (type $stream (stream u8))
            (type $future (future u8))
            (core func $wait (canon lower (func $wait)))
            (core func $begin-wait (canon lower (func $wait) async))
            (core func $set (canon waitable-set.new))
            (core func $stream (canon stream.new $stream))
            (core func $write (canon stream.write $stream async (memory $memory)))
            (core func $read (canon stream.read $stream async (memory $memory)))
            (core func $future (canon future.new $future))
            (core func $read-future (canon future.read $future async (memory $memory)))
            (core func $drop-future (canon future.drop-writable $future))
            (core module $m
                (import "" "wait" (func $wait (param i64)))
                (import "" "begin-wait" (func $begin-wait (param i64) (result i32)))
                (import "" "set" (func $set (result i32)))
                (import "" "stream" (func $stream (result i64)))
                (import "" "write" (func $write (param i32 i32 i32) (result i32)))
                (import "" "read" (func $read (param i32 i32 i32) (result i32)))
                (import "" "future" (func $future (result i64)))
                (import "" "read-future" (func $read-future (param i32 i32) (result i32)))
                (import "" "drop-future" (func $drop-future (param i32)))
                (func $reader (param i64) (result i32) (i32.wrap_i64 (local.get 0)))
                (func $writer (param i64) (result i32)
                    (i32.wrap_i64 (i64.shr_u (local.get 0) (i64.const 32))))
                (func (export "run") (result i32) (local $n i64) {body} (i32.const 0)))
            (core instance $i (instantiate $m (with "" (instance
                (export "wait" (func $wait))
                (export "begin-wait" (func $begin-wait))
                (export "set" (func $set))
                (export "stream" (func $stream))
                (export "write" (func $write))
                (export "read" (func $read))
                (export "future" (func $future))
                (export "read-future" (func $read-future))
                (export "drop-future" (func $drop-future))))))
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $run)))"#
    ))
}
