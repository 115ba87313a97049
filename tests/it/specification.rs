//! SPECIFICATION.md promises nothing that no test holds.

use std::fs;
use std::path::PathBuf;

use tests::guests::repository;

/// Where a test may be: `it::cli::name`, `load::leaks::name`, `soak::proxies::name`, `whit::a::b::name`.
fn places(test: &str) -> Option<(Vec<PathBuf>, &str)> {
    let (module, name) = test.rsplit_once("::")?;
    let (kind, module) = module.split_once("::")?;
    let root = match kind {
        "it" | "load" | "soak" => repository().join("tests").join(kind),
        "whit" => repository().join("host/src"),
        _ => return None,
    };
    let module = root.join(module.replace("::", "/"));
    let places = [module.with_extension("rs"), module.join("mod.rs"), module.join("tests.rs")];
    Some((places.into(), name))
}

fn is_a_test(test: &str) -> bool {
    let Some((places, name)) = places(test) else { return false };
    let function = format!("fn {name}(");
    places.iter().filter_map(|place| fs::read_to_string(place).ok()).any(|text| {
        text.split("#[").any(|part| {
            let (attribute, rest) = part.split_once(']').unwrap_or_default();
            let is_test = attribute == "test" || attribute.starts_with("tokio::test");
            is_test && rest.lines().take(3).any(|line| line.contains(&function))
        })
    })
}

#[test]
fn every_promise_is_held_by_tests_that_exist() {
    let text = fs::read_to_string(repository().join("SPECIFICATION.md")).expect("the promises");
    let mut promises = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        if cells[0].trim() == "promise" {
            continue;
        }
        assert_eq!(cells.len(), 4, "{row}");
        let tests: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            assert!(is_a_test(test), "there is no test {test}");
        }
        promises += 1;
    }
    assert!(promises > 40, "{promises}");
    assert!(!is_a_test("it::specification::is_a_test"));
}
