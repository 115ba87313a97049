//! What is wrong with source, or happens to it while it is built: said in a line
//! that names it, while the rest is built and serves.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tests::command;
use tests::dev::{Dev, Gate, save};
use tests::disk::Disk;
use tests::guests;
use whit::dev::languages::Language;

use crate::{WHIT, host};

/// Makes a Python package, as a wheel, that can not do without its native code.
const WHEEL: &str = r#"
import zipfile
info = "needs-1.0.dist-info"
files = {
    "needs/__init__.py": "from . import _native\n",
    "needs/_native.cpython-311-x86_64-linux-gnu.so": "machine code",
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: needs\nVersion: 1.0\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
}
files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in files)
with zipfile.ZipFile("needs-1.0-py3-none-any.whl", "w") as wheel:
    for file, content in files.items():
        wheel.writestr(file, content)
"#;

const SETUP: &str = "from setuptools import setup, Extension\n\
    setup(name='compiled', version='1', ext_modules=[Extension('compiled', ['compiled.c'])])\n";

const APP: &str = "def app(environ, start):\n  start('200 OK', [])\n  return [b'never']\n";

#[test]
fn native_code_is_named_with_its_package_and_the_rest_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| save(&folder.path().join(name), content);
    for user in ["py-deep", "py-first"] {
        fs::create_dir_all(folder.path().join(user)).expect("a folder");
        let mut wheel = Command::new("python3");
        wheel.args(["-c", WHEEL]).current_dir(folder.path().join(user));
        command::run(&mut wheel).succeeded();
    }
    write("py-deep/requirements.txt", "./needs-1.0-py3-none-any.whl\n");
    write("py-deep/app.py", &format!("import needs\n{APP}"));
    write("py-first/requirements.txt", "./needs-1.0-py3-none-any.whl\n");
    write("py-first/app.py", &format!("from needs import _native\n{APP}"));
    write("py-source/requirements.txt", "./compiled\n");
    write("py-source/compiled/setup.py", SETUP);
    write("py-source/compiled/compiled.c", "int x;\n");
    write("py-source/app.py", APP);
    write("js-addon/index.js", "import addon from 'addon';\nexport default () => addon();\n");
    write("js-addon/node_modules/addon/package.json", r#"{"name": "addon", "version": "1.0.0"}"#);
    write("js-addon/node_modules/addon/binding.gyp", "{}");
    write("js-addon/node_modules/addon/index.js", "module.exports = require('./addon.node');");
    write("js-node/index.js", "import read from 'reader';\nexport default () => read();\n");
    write("js-node/node_modules/reader/package.json", r#"{"name": "reader", "version": "1.0.0"}"#);
    write(
        "js-node/node_modules/reader/index.js",
        "const fs = require('fs');\nmodule.exports = () => fs.readFileSync('x');\n",
    );
    save(&folder.path().join("fine.wasm"), guests::answering("fine"));

    let host = host().start();
    let ran = {
        let _turn = guests::take_turns();
        guests::get_ready(Language::Python);
        guests::get_ready(Language::JavaScript);
        let mut deploy = command::command(WHIT, host.folder());
        command::run(deploy.arg("deploy").current_dir(folder.path()))
    };
    assert_eq!(ran.code, 1, "{ran:#?}");
    let native = "needs/_native.cpython-311-x86_64-linux-gnu.so, of the package needs";
    for line in [
        &format!("needs._native is native code ({native}), which does not run in a component"),
        "compiled has to be compiled to native code, which does not run in a component",
        "addon has native code (binding.gyp), which does not run in a component",
        "reader needs Node.js itself (fs), which is not there in a component",
    ] {
        assert!(ran.stderr.contains(line), "{line:?} is not in:\n{}", ran.stderr);
    }
    // The lines alone: no words of tools that nobody can act upon.
    for noise in ["Traceback", "node_modules/.bin", "wheel", "at async"] {
        assert!(!ran.stderr.contains(noise), "{noise:?} is in:\n{}", ran.stderr);
    }
    for name in ["py-deep", "py-first", "py-source", "js-addon", "js-node"] {
        assert!(ran.stderr.contains(&format!("failed {name}: ")), "{}", ran.stderr);
    }
    host.get("/fine/").assert_text("fine");
}

#[test]
fn a_file_that_vanishes_while_it_is_built_leaves_what_was_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new();
    let source = folder.path().join("slow/source.wasm");
    save(&folder.path().join("slow/whit.toml"), gate.manifest("slow"));
    save(&source, guests::answering("one"));
    save(&folder.path().join("other.wasm"), guests::answering("other one"));
    let dev = Dev::start(WHIT, folder.path());
    drop(gate.reached());
    dev.answers("/slow/", 200, "one");
    dev.answers("/other/", 200, "other one");

    save(&source, guests::answering("two"));
    let building = gate.reached();
    fs::remove_file(&source).expect("remove it");
    drop(building);
    dev.says("failed slow");
    dev.says("source.wasm");
    dev.says("revision 1 keeps answering");
    dev.answers("/slow/", 200, "one");

    // That it is gone is a change as well.
    drop(gate.reached());
    save(&source, guests::answering("three"));
    drop(gate.reached());
    dev.answers("/slow/", 200, "three");
    dev.end();
}

#[test]
fn a_folder_that_vanishes_while_it_is_built_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new();
    save(&folder.path().join("slow/whit.toml"), gate.manifest("slow"));
    save(&folder.path().join("slow/source.wasm"), guests::answering("one"));
    save(&folder.path().join("other.wasm"), guests::answering("other"));
    let dev = Dev::start(WHIT, folder.path());
    drop(gate.reached());
    dev.answers("/slow/", 200, "one");
    save(&folder.path().join("slow/source.wasm"), guests::answering("two"));
    let building = gate.reached();
    fs::remove_dir_all(folder.path().join("slow")).expect("remove it");
    drop(building);
    dev.says("failed slow");
    dev.says("removed slow");
    dev.answers("/slow/", 404, "");
    dev.answers("/other/", 200, "other");
    dev.end();
}

#[test]
fn a_full_disk_fails_the_build_and_nothing_else() {
    let Some(disk) = Disk::small("4m") else { return };
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (project, filler) = (disk.path().join("project"), disk.path().join("filler"));
    let page = project.join("page/page.c");
    // Large, once it is compiled: the text says how large.
    let text = |greeting: &str, bytes: &str| {
        format!(
            "#include <stdio.h>\nvolatile char pad[{bytes}] = {{1}};\n\
             int main(void) {{ printf(\"Content-Type: text/plain\\n\\n{greeting} %d\", pad[0]); }}\n"
        )
    };
    save(&page, text("one", "      9"));
    save(&project.join("other.wasm"), guests::answering("other one"));
    {
        let _turn = guests::take_turns();
        guests::get_ready(Language::C);
    }
    let dev = Dev::start_with_data(WHIT, &project, &elsewhere.path().join("data"));
    dev.answers("/page/", 200, "one 1");
    disk.fill(&filler);
    // In place: there is no room for a second file.
    overwrite(&page, text("two", "9000000").as_bytes());
    dev.says("failed page");
    dev.says("failed because a disk is full; make room");
    dev.answers("/page/", 200, "one 1");
    overwrite(&project.join("other.wasm"), &guests::answering("other two"));
    dev.answers("/other/", 200, "other two");
    fs::remove_file(&filler).expect("make room");
    overwrite(&page, text("two", "      9").as_bytes());
    dev.answers("/page/", 200, "two 1");
    dev.end();
}

/// Changes the bytes of a file, which are as many as before.
fn overwrite(path: &Path, content: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("open it");
    file.write_all(content).expect("write");
}
