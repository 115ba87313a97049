//! `whit dev` follows what functions are made of, wherever it lies.

use std::fs;
use std::path::Path;

use tests::dev::{Dev, save};
use tests::guests;
use whit::dev::languages::Language;

use crate::WHIT;

const WORDS_MANIFEST: &str =
    "[package]\nname = \"words\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";

#[test]
fn a_rust_package_outside_of_the_folder_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    save(&place("words/Cargo.toml"), WORDS_MANIFEST);
    let words = |word: &str| format!("pub const WORD: &str = \"{word}\";\n");
    save(&place("words/src/lib.rs"), words("one"));
    save(
        &place("hello/Cargo.toml"),
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [dependencies]\nwords = { path = \"../words\" }\n",
    );
    save(
        &place("hello/src/main.rs"),
        "fn main() { println!(\"Content-Type: text/plain\\n\\n{}\", words::WORD); }\n",
    );
    let dev = start(&[Language::Rust], &place("hello"));
    dev.answers("/hello/", 200, "one");
    save(&place("words/src/lib.rs"), words("two"));
    dev.answers("/hello/", 200, "two");
    // What is broken there fails the function here, until it is mended there.
    save(&place("words/src/lib.rs"), "pub const WORD\n");
    dev.says("failed hello");
    dev.answers("/hello/", 200, "two");
    save(&place("words/src/more.rs"), words("three"));
    save(&place("words/src/lib.rs"), "mod more;\npub use more::WORD;\n");
    dev.answers("/hello/", 200, "three");
    save(&place("words/src/more.rs"), words("four"));
    dev.answers("/hello/", 200, "four");
    dev.end();
}

#[test]
fn what_is_shared_by_files_of_a_project_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let header = |word: &str| format!("#define WORD \"{word}\"\n");
    let module = |word: &str| format!("export const word: string = \"{word}\";\n");
    save(&place("shared/word.h"), header("one"));
    save(&place("project/api/_shared.h"), "#include \"../../shared/word.h\"\n");
    save(
        &place("project/api/c.c"),
        "#include <stdio.h>\n# include \"_shared.h\"\nint main(void) { puts(\"Content-Type: text/plain\\n\\nc \" WORD); }\n",
    );
    save(&place("shared/word.ts"), module("one"));
    save(
        &place("project/api/ts.ts"),
        "import { word } from \"../../shared/word\";\nexport default () => new Response(`ts ${word}`);\n",
    );
    save(&place("project/api/other.wasm"), guests::answering("other"));
    let dev = start(&[Language::C, Language::JavaScript], &place("project"));
    dev.answers("/api/c", 200, "c one");
    dev.answers("/api/ts", 200, "ts one");
    save(&place("shared/word.h"), header("two"));
    dev.answers("/api/c", 200, "c two");
    save(&place("shared/word.ts"), module("two"));
    dev.answers("/api/ts", 200, "ts two");
    save(&place("shared/word.ts"), "export const word = \n");
    dev.says("failed api-ts");
    save(&place("shared/word.ts"), module("three"));
    dev.answers("/api/ts", 200, "ts three");
    let said = dev.output();
    assert_eq!(said.matches("deployed api-other").count(), 1, "only what changed: {said}");
    assert_eq!(said.matches("deployed api-c").count(), 2, "only what changed: {said}");
    dev.end();
}

/// Starts it when the tools are there.
fn start(languages: &[Language], folder: &Path) -> Dev {
    let _turn = guests::take_turns();
    languages.iter().for_each(|language| guests::get_ready(*language));
    fs::create_dir_all(folder).expect("the folder");
    Dev::start(WHIT, folder)
}
