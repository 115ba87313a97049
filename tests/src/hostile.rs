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
    guests::typed_text(
        "p3",
        "service",
        &format!(
            r#"(module
            (import "$root" "[waitable-set-new]" (func $waitable-set (result i32)))
            (import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
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
