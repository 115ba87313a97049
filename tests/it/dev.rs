//! `whit dev` follows what functions are made of, wherever it lies.

use std::fs;
use std::path::Path;

use tests::dev::{Dev, Gate, save};
use tests::{eventually, guests};
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

#[test]
fn a_slow_build_holds_up_nothing_else_and_what_changes_meanwhile_is_built_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new();
    let source = folder.path().join("slow/source.wasm");
    let other = folder.path().join("other.wasm");
    save(&folder.path().join("slow/whit.toml"), gate.manifest("slow"));
    save(&source, guests::answering("one"));
    save(&other, guests::answering("other one"));
    let dev = Dev::start(WHIT, folder.path());
    let building = gate.reached();
    // Others are built, changed, found and taken back beside it.
    dev.answers("/other/", 200, "other one");
    save(&other, guests::answering("other two"));
    dev.answers("/other/", 200, "other two");
    save(&folder.path().join("new.wasm"), guests::answering("new"));
    dev.answers("/new/", 200, "new");
    fs::remove_file(&other).expect("remove it");
    dev.answers("/other/", 404, "");
    assert_eq!(dev.output().matches("deployed slow").count(), 0, "{}", dev.output());

    // Several changes meanwhile are one build, with the last state.
    save(&source, guests::answering("two"));
    save(&source, guests::answering("three"));
    let manifest =
        gate.manifest("slow").replace("[functions.slow]", "[functions.slow]\nenv = { A = 'B' }");
    save(&folder.path().join("slow/whit.toml"), manifest);
    save(&folder.path().join("last.wasm"), guests::answering("last"));
    dev.answers("/last/", 200, "last");
    drop(building);
    drop(gate.reached());
    dev.says("deployed slow revision 2");
    dev.answers("/slow/", 200, "three");
    // No third one: this is the next.
    save(&source, guests::answering("four"));
    drop(gate.reached());
    dev.says("deployed slow revision 3");
    dev.answers("/slow/", 200, "four");
    let said = dev.output();
    assert_eq!(said.matches("building slow").count(), 3, "{said}");
    dev.end();
}

#[test]
fn a_module_that_is_found_by_the_first_build_and_changes_in_it_is_built_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let module = |word: &str| format!("export const word = \"{word}\";\n");
    save(&place("shared/word.js"), module("one"));
    let import = "import { word } from \"../../shared/word.js\";\n";
    save(
        &place("project/api/js.js"),
        format!("{import}export default () => new Response(word);\n"),
    );
    let dev = start(&[Language::JavaScript], &place("project"));
    // It has been read when this is there, and the build goes on for a second.
    let read = place("project/.whit/build/api-js/inputs.txt");
    eventually("the bundle", || read.exists().then_some(()));
    save(&place("shared/word.js"), module("two"));
    dev.answers("/api/js", 200, "two");
    dev.end();
}

#[test]
fn a_replaced_go_module_outside_of_the_folder_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let words = |word: &str| format!("package words\n\nconst Word = \"{word}\"\n");
    let module = |name: &str| format!("module example.com/{name}\n\ngo 1.21\n");
    save(&place("words/go.mod"), module("words"));
    save(&place("words/words.go"), words("one"));
    save(&place("more/go.mod"), module("more"));
    save(&place("more/more.go"), "package more\n\nconst Word = \"more\"\n");
    let replaced = |name: &str| {
        format!("\nrequire example.com/{name} v0.0.0\nreplace example.com/{name} => ../{name}\n")
    };
    save(&place("hello/go.mod"), module("hello") + &replaced("words"));
    let main = |import: &str, words: &str| {
        format!(
            "package main\n\nimport (\n\t\"fmt\"\n\n{import})\n\n\
             func main() {{ fmt.Print(\"Content-Type: text/plain\\n\\n\", {words}) }}\n"
        )
    };
    save(&place("hello/main.go"), main("\t\"example.com/words\"\n", "words.Word"));
    let dev = start(&[Language::Go], &place("hello"));
    dev.answers("/hello/", 200, "one");
    save(&place("words/words.go"), words("two"));
    dev.answers("/hello/", 200, "two");
    // What is broken there fails the function here, until it is mended there.
    save(&place("words/words.go"), "package words\n\nconst Word\n");
    dev.says("failed hello");
    dev.answers("/hello/", 200, "two");
    save(&place("words/new.go"), words("three"));
    fs::remove_file(place("words/words.go")).expect("remove it");
    dev.answers("/hello/", 200, "three");
    // A module that is replaced only now is followed from now on.
    save(&place("hello/go.mod"), module("hello") + &replaced("words") + &replaced("more"));
    let both = "\t\"example.com/more\"\n\t\"example.com/words\"\n";
    save(&place("hello/main.go"), main(both, "words.Word, more.Word"));
    dev.answers("/hello/", 200, "threemore");
    save(&place("more/more.go"), "package more\n\nconst Word = \"most\"\n");
    dev.answers("/hello/", 200, "threemost");
    dev.end();
}

/// Starts it when the tools are there.
fn start(languages: &[Language], folder: &Path) -> Dev {
    let _turn = guests::take_turns();
    languages.iter().for_each(|language| guests::get_ready(*language));
    fs::create_dir_all(folder).expect("the folder");
    Dev::start(WHIT, folder)
}
