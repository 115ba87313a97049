//! Functions on QuickJS: what their top level may do when they are built, and the
//! template that all of them begin as.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::command::{self, Ran};
use tests::guests;
use whit::dev::languages::{Language, Toolchains};

use crate::{WHIT, host};

/// This machine's tools, seen from a folder in which nothing has been built yet.
struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        guests::get_ready(Language::JavaScript);
        let folder = tempfile::tempdir().expect("a folder");
        let Toolchains { root } = guests::toolchains();
        let tools = folder.path().join("tools/javascript");
        fs::create_dir_all(&tools).expect("a folder for the tools");
        symlink(root.join("python"), folder.path().join("tools/python")).expect("a link");
        symlink(root.join("javascript/node_modules"), tools.join("node_modules")).expect("a link");
        Self { folder }
    }

    /// `whit build`, of a project with this source.
    fn build(&self, name: &str, source: &str) -> Command {
        let project = self.folder.path().join(name);
        fs::create_dir_all(&project).expect("a project");
        fs::write(project.join("index.js"), source).expect("write");
        let mut command = command::command(WHIT, Path::new("/nowhere"));
        command.env("WHIT_TOOLCHAINS", self.folder.path().join("tools"));
        command.args(["build", "--output", &format!("../{name}.wasm")]).current_dir(project);
        command
    }

    #[track_caller]
    fn run(&self, name: &str, source: &str) -> Ran {
        command::run(&mut self.build(name, source))
    }

    /// What lies beside the tools.
    fn templates(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("tools/javascript")).expect("it");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| !path.ends_with("node_modules")).collect()
    }

    #[track_caller]
    fn template(&self) -> PathBuf {
        let templates = self.templates();
        let [template] = templates.as_slice() else { panic!("{templates:?}") };
        template.clone()
    }

    /// What a built function answers.
    fn answer(&self, name: &str) -> String {
        let component = self.folder.path().join(name).with_extension("wasm");
        let host = host().start();
        host.admin().deploy(name, &fs::read(component).expect("it"));
        host.get(&format!("/{name}/")).text()
    }
}

/// A module whose answer is what its top level has made.
fn showing(top_level: &str) -> String {
    format!("{top_level}\nexport default () => new Response(JSON.stringify(seen));\n")
}

#[test]
fn the_top_level_runs_once_when_a_function_is_built() {
    let _turn = guests::take_turns();
    let workshop = Workshop::new();
    let source = showing(
        r#"
import environment from "wasi:cli/environment@0.3.0";
const seen = { meta: [typeof import.meta, import.meta.url ?? null], self: typeof this };
seen.random = crypto.randomUUID();
seen.awaited = await Promise.resolve(1);
await new Promise((resolve) => setTimeout(resolve, 20));
seen.timer = "over";
seen.imported = typeof environment.getEnvironment;
seen.strict = (() => { try { undeclared = 1; return false; } catch { return true; } })();
seen.module = (await import("./other.js")).name;
setInterval(() => { seen.interval = true; }, 3600_000);
console.log("nobody hears this");
"#,
    );
    fs::create_dir_all(workshop.folder.path().join("top")).expect("a project");
    fs::write(workshop.folder.path().join("top/other.js"), "export const name = 'other';\n")
        .expect("write");
    let said = workshop.run("top", &source);
    assert!(!said.stderr.contains("nobody hears"), "{}", said.stderr);
    said.succeeded();
    let (first, second) = (workshop.answer("top"), workshop.answer("top"));
    assert_eq!(first, second, "what is random was made once");
    for part in [
        r#""meta":["object",null],"self":"undefined","random":""#,
        r#""awaited":1,"timer":"over","imported":"function","strict":true,"module":"other"}"#,
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
}

#[test]
fn what_goes_wrong_at_the_top_level_fails_the_build() {
    let _turn = guests::take_turns();
    let workshop = Workshop::new();
    let broken = workshop.folder.path().join("broken");
    fs::create_dir_all(&broken).expect("a project");
    fs::write(broken.join("inner.js"), "export function inner() { return nothingHere.at; }\n")
        .expect("write");
    for (top_level, complaints) in [
        (
            "import { inner } from './inner.js';\ninner();",
            &["ReferenceError: nothingHere is not defined", "at inner (inner.js, ", " (index.js, "]
                [..],
        ),
        ("class Own extends Error { name = 'Own'; }\nthrow new Own('mine');", &["Own: mine"]),
        ("throw 'a text';", &["a text was thrown"]),
        ("await Promise.reject(new TypeError('late'));", &["TypeError: late"]),
        ("await new Promise(() => {});", &["waits for what never comes"]),
        ("fetch('http://example.com/');", &["at the top level of a module there is no host yet"]),
        (
            "(function deeper() { deeper(); return 1; })();",
            &["the top level of the module failed", "stack"],
        ),
        (
            "globalThis.n = 0; while (true) n++;",
            &["did not end within 10 s", "belongs into the handler"],
        ),
        ("const all = []; while (true) all.push(new ArrayBuffer(1e8));", &["out of memory"]),
        ("import 'wasi:sockets/types@0.3.0';", &["wasi:sockets/types@0.3.0 is not there"]),
    ] {
        let said = workshop.run("broken", &showing(top_level)).failed(1);
        for complaint in complaints {
            assert!(said.contains(complaint), "{complaint} is not in:\n{said}");
        }
        assert!(!said.contains("panicked") && !said.contains("wasm function"), "{said}");
    }
    let said = workshop.run("broken", "export const nothing = 1;\n").failed(1);
    assert!(said.contains("the module has no handler"), "{said}");
    // None of that has harmed what all of them began as.
    workshop.run("broken", &showing("const seen = 'well';")).succeeded();
    assert_eq!(workshop.answer("broken"), r#""well""#);
}

#[test]
fn a_template_is_made_once_and_again_if_it_is_broken() {
    let _turn = guests::take_turns();
    let workshop = Workshop::new();
    workshop.run("first", &showing("const seen = 1;")).succeeded();
    let template = workshop.template();
    let made = fs::metadata(&template).expect("it");
    assert_eq!(made.mode() & 0o777, 0o644);

    workshop.run("second", &showing("const seen = 2;")).succeeded();
    assert_eq!(workshop.template(), template);
    assert_eq!(fs::metadata(&template).expect("it").ino(), made.ino(), "it is used again");

    // Cut off, and with a byte that differs.
    let whole = fs::read(&template).expect("it");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for (seen, broken) in [(3, &whole[..whole.len() / 2]), (4, &changed)] {
        fs::write(&template, broken).expect("break it");
        workshop.run("third", &showing(&format!("const seen = {seen};"))).succeeded();
        assert_eq!(workshop.template(), template, "nothing else is left there");
        let made = fs::metadata(&template).expect("it").ino();
        workshop.run("second", &showing(&format!("const seen = -{seen};"))).succeeded();
        assert_eq!(fs::metadata(&template).expect("it").ino(), made, "it is whole again");
    }

    // Where it can not be kept beside the tools, it is kept with the function.
    fs::remove_file(&template).expect("remove it");
    fs::create_dir(&template).expect("be in its place");
    workshop.run("fourth", &showing("const seen = 6;")).succeeded();
    let name = template.file_name().expect("a name");
    assert!(workshop.folder.path().join("fourth/.whit/build/fourth").join(name).is_file());
    assert_eq!(workshop.answer("fourth"), "6");
    assert_eq!(workshop.answer("third"), "4");
}

#[test]
fn builds_at_the_same_time_do_not_disturb_each_other() {
    let _turn = guests::take_turns();
    let workshop = Workshop::new();
    let names = ["left", "right", "third"];
    let builds: Vec<_> = names
        .iter()
        .map(|name| {
            let mut build = workshop.build(name, &showing(&format!("const seen = '{name}';")));
            build.stdout(std::process::Stdio::null()).spawn().expect("start it")
        })
        .collect();
    for mut build in builds {
        assert!(build.wait().expect("an end").success());
    }
    workshop.template();
    for name in names {
        assert_eq!(workshop.answer(name), format!("\"{name}\""));
    }
}
