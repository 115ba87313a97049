//! How many instances with code of their own one instance of a component makes.
//!
//! In a 0.3 guest each of them can keep one call waiting, and a call that waits
//! has a stack: see [`super::pool::INSTANCES_WITH_CODE_MAX`].

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

/// Of one component, as far as it has been read.
#[derive(Debug, Default)]
struct Scope {
    is_component: bool,
    /// Whether it has instances of core modules.
    has_code: bool,
    /// What an instance of each component that it can name makes.
    components: Vec<Count>,
    /// What its own instances of them make, all together.
    inner: Inner,
}

/// None: nobody can tell, because the component comes from elsewhere.
type Count = Option<u64>;

#[derive(Debug)]
struct Inner(Count);

impl Default for Inner {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Scope {
    fn count(&self) -> Count {
        self.inner.0.map(|inner| inner.saturating_add(self.has_code.into()))
    }

    fn named(&self, index: u32) -> Count {
        self.components.get(index as usize).copied().flatten()
    }

    fn instantiate(&mut self, index: u32) {
        let more = self.named(index);
        self.inner.0 = self.inner.0.zip(more).map(|(inner, more)| inner.saturating_add(more));
    }
}

/// Counts them; none where a component is instantiated that comes from elsewhere.
///
/// # Errors
/// When the component is broken.
pub fn with_code(component: &[u8]) -> Result<Option<u64>, BinaryReaderError> {
    let mut scopes: Vec<Scope> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        if let Payload::Version { encoding, .. } = &payload {
            let is_component = *encoding == Encoding::Component;
            scopes.push(Scope { is_component, ..Scope::default() });
            continue;
        }
        if let Payload::End(_) = &payload {
            let Some(ended) = scopes.pop() else { break };
            match scopes.last_mut() {
                None => return Ok(ended.count()),
                Some(outer) if ended.is_component => outer.components.push(ended.count()),
                Some(_) => {}
            }
            continue;
        }
        if let Payload::ComponentAliasSection(section) = &payload {
            for alias in section.clone() {
                let named = match alias? {
                    ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::Component,
                        count,
                        index,
                    } => {
                        let outer = scopes.iter().rev().nth(count as usize);
                        outer.and_then(|outer| outer.named(index))
                    }
                    ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Component,
                        ..
                    } => None,
                    _ => continue,
                };
                scopes.last_mut().into_iter().for_each(|scope| scope.components.push(named));
            }
            continue;
        }
        if let Some(scope) = scopes.last_mut() {
            take(scope, payload)?;
        }
    }
    Ok(None)
}

/// What concerns one component alone.
fn take(scope: &mut Scope, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
    match payload {
        Payload::InstanceSection(section) => {
            for instance in section {
                scope.has_code |= matches!(instance?, Instance::Instantiate { .. });
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section {
                if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                    scope.instantiate(component_index);
                }
            }
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                if let ComponentTypeRef::Component(_) = import?.ty {
                    scope.components.push(None);
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                let export = export?;
                // What is exported has a second name from then on.
                if export.kind == ComponentExternalKind::Component {
                    let named = scope.named(export.index);
                    scope.components.push(named);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "(core module $m) (core instance (instantiate $m))";

    fn count(text: &str) -> Option<u64> {
        with_code(&wat::parse_str(format!("(component {text})")).unwrap()).unwrap()
    }

    #[test]
    fn instances_are_counted_through_all_names() {
        assert_eq!(count(""), Some(0));
        assert_eq!(count("(core module)"), Some(0));
        assert_eq!(count(CODE), Some(1));
        assert_eq!(count(&format!("{CODE} {}", CODE.replace("$m", "$n"))), Some(1));
        let one = format!("(component $a {CODE})");
        assert_eq!(count(&one), Some(0), "nobody instantiates it");
        let twice = "(instance (instantiate $a)) (instance (instantiate $a))";
        assert_eq!(count(&format!("{one} {twice} {CODE}")), Some(3));
        // Two of what has two.
        let inside = format!("(component $b {one} {twice})");
        let outside = twice.replace("$a", "$b");
        assert_eq!(count(&format!("{inside} {outside}")), Some(4));
        let outer = format!("{one} (component $b (alias outer 1 $a (component $a)) {twice})");
        assert_eq!(count(&format!("{outer} {outside}")), Some(4));
        let exported = format!("{one} (export $b \"b\" (component $a)) {outside}");
        assert_eq!(count(&exported), Some(2));
    }

    #[test]
    fn what_nobody_can_tell_is_not_taken_for_little() {
        let imported = "(import \"a\" (component $a)) (instance (instantiate $a))";
        assert_eq!(count(imported), None);
        let passed = format!("(component $outer {imported}) (component $given {CODE})");
        let instance = "(instance (instantiate $outer (with \"a\" (component $given))))";
        assert_eq!(count(&format!("{passed} {instance}")), None);
        // 2 to the power of 80.
        let mut text = format!("(component $a {CODE})");
        for _ in 0..80 {
            text = format!(
                "(component $a {text} (instance (instantiate $a)) (instance (instantiate $a)))"
            );
        }
        assert_eq!(count(&format!("{text} (instance (instantiate $a))")), Some(u64::MAX));
        assert!(with_code(b"\0asm\x0d\0\x01\0\xff").is_err());
    }
}
