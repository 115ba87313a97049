//! What `whit new` writes: a function that says hello, in each language.
//!
//! The files lie in `guest-sdk/templates/` as somebody would write them. The
//! name [`PLACEHOLDER`] in them stands for the function's; nothing else is
//! replaced.

use std::fs;
use std::io;
use std::path::Path;

use super::languages::Language;

/// The function's name in the templates.
const PLACEHOLDER: &str = "my-function";

/// A function to begin with.
#[derive(Debug)]
pub struct Template {
    /// Its name on the command line.
    pub name: &'static str,
    /// Whose tools build it; text needs none.
    pub language: Option<Language>,
    /// The file to read and change first.
    pub main: &'static str,
    /// Paths and contents.
    pub files: &'static [(&'static str, &'static str)],
}

/// The files of a template's folder; all of them have these three besides.
macro_rules! files {
    ($folder:literal: $($file:literal),+) => {
        &[
            $(files!(@file $folder, $file),)+
            files!(@file $folder, "README.md"),
            files!(@file $folder, "whit.toml"),
            files!(@file $folder, ".gitignore"),
        ]
    };
    (@file $folder:literal, $file:literal) => {
        ($file, include_str!(concat!("../../../guest-sdk/templates/", $folder, "/", $file)))
    };
}

/// Every template.
pub const TEMPLATES: [Template; 10] = [
    Template {
        name: "rust",
        language: Some(Language::Rust),
        main: "src/main.rs",
        files: files!("rust": "src/main.rs", "Cargo.toml"),
    },
    Template {
        name: "c",
        language: Some(Language::C),
        main: "hello.c",
        files: files!("c": "hello.c"),
    },
    Template {
        name: "cpp",
        language: Some(Language::Cpp),
        main: "hello.cpp",
        files: files!("cpp": "hello.cpp"),
    },
    Template {
        name: "go",
        language: Some(Language::Go),
        main: "main.go",
        files: files!("go": "main.go", "go.mod"),
    },
    Template {
        name: "zig",
        language: Some(Language::Zig),
        main: "main.zig",
        files: files!("zig": "main.zig"),
    },
    Template {
        name: "javascript",
        language: Some(Language::JavaScript),
        main: "index.js",
        files: files!("javascript": "index.js", "package.json"),
    },
    Template {
        name: "typescript",
        language: Some(Language::JavaScript),
        main: "index.ts",
        files: files!("typescript": "index.ts", "package.json", "tsconfig.json"),
    },
    Template {
        name: "python",
        language: Some(Language::Python),
        main: "app.py",
        files: files!("python": "app.py"),
    },
    Template {
        name: "assemblyscript",
        language: Some(Language::AssemblyScript),
        main: "assembly/index.ts",
        files: files!("assemblyscript": "assembly/index.ts", "asconfig.json", "package.json"),
    },
    Template { name: "wat", language: None, main: "hello.wat", files: files!("wat": "hello.wat") },
];

/// The template of that name, or of a usual short one.
///
/// # Errors
/// Says which one may have been meant.
pub fn find(name: &str) -> Result<&'static Template, String> {
    // TypeScript is JavaScript to a builder, but not to a beginner.
    let full = match name.to_ascii_lowercase().as_str() {
        "ts" | "typescript" => "typescript",
        "wat" => "wat",
        other => other.parse().map_or("", Language::name),
    };
    TEMPLATES.iter().find(|template| template.name == full).ok_or_else(|| {
        let names: Vec<&str> = TEMPLATES.iter().map(|template| template.name).collect();
        format!("unknown language `{name}`; {}", super::languages::known(name, &names))
    })
}

impl Template {
    /// Writes the files into `folder`, which must not be there.
    ///
    /// # Errors
    /// When it is there, or can not be written.
    pub fn write(&self, function: &str, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)?;
        for (path, text) in self.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::write(path, text.replace(PLACEHOLDER, function))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_found_by_name_and_nothing_of_the_placeholder_stays() {
        for template in &TEMPLATES {
            assert_eq!(find(template.name).unwrap().name, template.name);
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("greet");
            template.write("greet", &folder).unwrap();
            assert!(template.write("greet", &folder).is_err());
            assert!(folder.join(template.main).is_file(), "{}", template.name);
            for (path, _) in template.files {
                let text = fs::read_to_string(folder.join(path)).unwrap();
                assert!(!text.contains(PLACEHOLDER), "{path}");
            }
        }
        for (short, name) in [("ts", "typescript"), ("js", "javascript"), ("C++", "cpp")] {
            assert_eq!(find(short).unwrap().name, name);
        }
        assert!(find("tyepscript").unwrap_err().contains("`typescript`"));
        assert!(find("cobol").unwrap_err().contains("wat"));
    }
}
