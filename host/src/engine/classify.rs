//! What an upload is, told from its bytes.

use std::collections::BTreeSet;

use wasmparser::{Encoding, Parser, Payload};

use crate::model::function::GuestKind;

/// What Whit accepts, for error messages.
pub const ACCEPTED: &str = "a component that exports wasi:http/incoming-handler@0.2 or \
     wasi:http/handler@0.3 or wasi:cli/run, a wasip1 command (a core module with _start), or a \
     core module with component-type sections";

/// What has to be done with an upload to make it a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It is a component.
    Component,
    /// A core module that carries its component type: wrapped with the proxy adapter.
    CoreHttp,
    /// A wasip1 command: wrapped with the command adapter.
    CoreCommand,
}

/// Why an upload is not a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAGuest {
    /// Not WebAssembly at all, or not its binary form.
    Unsupported(String),
    /// WebAssembly, but broken.
    Invalid(String),
    /// Nothing that could be called. Holds what it exports instead.
    NoHandler(Vec<String>),
}

/// Tells from the first bytes what an upload can not be, before anything
/// expensive is started. Needs the first 8 bytes, and as many more as there are.
///
/// # Errors
/// [`NotAGuest::Unsupported`], which names what was found.
pub fn sniff(head: &[u8]) -> Result<(), NotAGuest> {
    let found = match head {
        [] => "an empty body",
        [b'\0', b'a', b's', b'm', ..] if head.len() < 8 => "a truncated WebAssembly header",
        [b'\0', b'a', b's', b'm', version @ ..] => match version.first_chunk::<4>() {
            Some([1, 0, 0, 0] | [13, 0, 1, 0]) => return Ok(()),
            _ => "WebAssembly of an unknown version",
        },
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file (native code, such as a .cwasm or a program)",
        [b'P', b'K', 3 | 5, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "gzip data",
        [b'B', b'C', 0xc0, 0xde, ..] => "LLVM bitcode",
        _ if looks_like_wat(head) => {
            "WebAssembly text; `whit deploy` converts .wat files, the API takes the binary form"
        }
        _ if head.iter().all(|byte| (9..127).contains(byte)) => "text",
        _ => "unknown binary data",
    };
    Err(NotAGuest::Unsupported(found.to_owned()))
}

fn looks_like_wat(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;")
}

/// Tells a component from the core modules that can become one.
///
/// # Errors
/// When it is broken, or nothing in it could be called.
pub fn form(bytes: &[u8]) -> Result<Form, NotAGuest> {
    sniff(bytes)?;
    let invalid = |error: wasmparser::BinaryReaderError| NotAGuest::Invalid(error.to_string());
    let (mut typed, mut exports) = (false, Vec::new());
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Component, .. } => return Ok(Form::Component),
            Payload::CustomSection(section) => {
                typed |= section.name().starts_with("component-type");
            }
            Payload::ExportSection(section) => {
                for export in section {
                    exports.push(export.map_err(invalid)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    match (exports.iter().any(|name| name == "_start"), typed) {
        (_, true) => Ok(Form::CoreHttp),
        (true, false) => Ok(Form::CoreCommand),
        (false, false) => Err(NotAGuest::NoHandler(exports)),
    }
}

/// How a component is called, told from the names that it exports. The newest
/// http interface wins over an older one, and http over a command.
///
/// # Errors
/// When it is broken or exports none of the known names.
pub fn kind(component: &[u8]) -> Result<GuestKind, NotAGuest> {
    let invalid = |error: wasmparser::BinaryReaderError| NotAGuest::Invalid(error.to_string());
    let mut exports = Vec::new();
    // Nested components have exports of their own, which do not count.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let has = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
    let kinds = [
        ("wasi:http/handler@0.3.", GuestKind::Http03),
        ("wasi:http/incoming-handler@0.2.", GuestKind::Http02),
        ("wasi:cli/run@0.3.", GuestKind::Cgi03),
        ("wasi:cli/run@0.2.", GuestKind::Cgi02),
    ];
    match kinds.into_iter().find(|(interface, _)| has(interface)) {
        Some((_, kind)) => Ok(kind),
        None => Err(NotAGuest::NoHandler(exports)),
    }
}

/// What a component or core module imports: the names of interfaces, or of the
/// modules that functions are taken from. Sorted, each once.
///
/// # Errors
/// When it is broken.
pub fn imports(bytes: &[u8]) -> Result<Vec<String>, NotAGuest> {
    let invalid = |error: wasmparser::BinaryReaderError| NotAGuest::Invalid(error.to_string());
    let mut names = BTreeSet::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    names.insert(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) if depth == 1 => {
                for import in section.into_imports() {
                    names.insert(import.map_err(invalid)?.module.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wasm_is_named() {
        for (head, expected) in [
            (&b""[..], "empty body"),
            (b"\0asm", "truncated"),
            (b"\0asm\x02\0\0\0", "unknown version"),
            (b"\x7fELF\x02\x01", "ELF"),
            (b"  (module)", "WebAssembly text"),
            (b"hello", "text"),
            (b"PK\x03\x04", "zip"),
            (b"\xff\xfe\xfd", "binary"),
        ] {
            match sniff(head) {
                Err(NotAGuest::Unsupported(found)) => assert!(found.contains(expected), "{found}"),
                other => panic!("{head:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn imports_are_named_once() {
        let wat = |text: &str| wat::parse_str(text).unwrap();
        let module =
            r#"(module (import "b" "1" (func)) (import "a" "2" (func)) (import "b" "3" (func)))"#;
        assert_eq!(imports(&wat(module)).unwrap(), ["a", "b"]);
        let component = r#"(component (import "wasi:x/y@0.2.0" (instance)) (core module (import "c" "d" (func))))"#;
        assert_eq!(imports(&wat(component)).unwrap(), ["wasi:x/y@0.2.0"]);
        assert!(imports(b"text").is_err());
    }

    #[test]
    fn forms_and_kinds() {
        let wat = |text: &str| wat::parse_str(text).unwrap();
        assert_eq!(form(&wat("(component)")), Ok(Form::Component));
        assert_eq!(form(&wat("(module (func (export \"_start\")))")), Ok(Form::CoreCommand));
        assert_eq!(form(&wat("(module (@custom \"component-type:x\" \"\"))")), Ok(Form::CoreHttp));
        assert_eq!(
            form(&wat("(module (func (export \"main\")))")),
            Err(NotAGuest::NoHandler(vec!["main".into()]))
        );
        let command = "(component (instance $i) (export \"wasi:cli/run@0.2.3\" (instance $i)))";
        assert_eq!(kind(&wat(command)), Ok(GuestKind::Cgi02));
        let nested = format!("(component (component {}))", &command[10..command.len() - 1]);
        assert!(matches!(kind(&wat(&nested)), Err(NotAGuest::NoHandler(_))), "{nested}");
    }
}
