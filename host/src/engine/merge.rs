//! Makes one core module of those that a component is made of, before it is
//! compiled.
//!
//! Components come in parts: what a compiler made, the libraries that it was linked
//! with, adapters, and modules that stand in for functions which can not be there
//! when they are needed. Each part is an instance of its own in every request, with
//! its imports to be looked up, and what goes from one to the other goes through
//! tables that are filled anew each time. As one module they are one instance;
//! calls are direct, and tables are part of the artifact.
//!
//! The memory is in a first module of its own: what a component makes for its core
//! module needs the memory, and is imported by it. So there are two instances. A table
//! that code only calls through is left out ([`calls`]), and so is what nothing calls
//! ([`unused`]).
//!
//! ```text
//!   before                              after
//!   shim ◄── main ◄── fixup             first ◄── merged
//!   table    memory   fills the table   memory    all code
//! ```
//!
//! It is another way to write down the same component: imports, exports, memory and
//! code are as they were, and the result is validated like any upload. A component
//! of a form that is not known here is compiled as it is.

mod calls;
mod encode;
mod module;
mod named;
mod scope;
mod touch;
mod unused;

use std::collections::HashMap;

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentTypeSection,
    ExportKind, InstanceSection, ModuleArg, ModuleSection, RawSection,
};
use wasmparser::{ComponentAlias, ComponentOuterAliasKind, Parser, Payload};

use encode::{CANONICAL, FIRST, Layout, MEMORY};
use scope::{Function, Own, Scope, Section, sections};

/// A core module in a component.
const CORE_MODULE_SECTION: u8 = 1;
/// Components in components, at most.
const DEPTH_MAX: u32 = 8;

/// Why a component stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotMerged {
    /// It has no parts that could be merged.
    #[error("there is nothing to merge")]
    Nothing,
    /// It has something that is not known here.
    #[error("it has {0}")]
    Form(&'static str),
    /// It is broken.
    #[error("it can not be read")]
    Broken(#[from] wasmparser::BinaryReaderError),
    /// It can not be written anew.
    #[error("it can not be written anew: {0}")]
    Encode(String),
}

fn other_form(what: &'static str) -> NotMerged {
    NotMerged::Form(what)
}

impl<E: std::fmt::Display> From<reencode::Error<E>> for NotMerged {
    fn from(error: reencode::Error<E>) -> Self {
        Self::Encode(error.to_string())
    }
}

/// The same component with fewer core modules. One with a large memory has a function
/// more, `touch`, for the host alone ([`super::resident`]).
///
/// # Errors
/// When it stays as it is. It has to be valid: of what is not, anything may come.
pub fn merge(component: &[u8], touch: &str) -> Result<Vec<u8>, NotMerged> {
    refuse_outer_modules(component)?;
    merge_scope(component, DEPTH_MAX, Some(touch))
}

/// Modules are numbered anew, so nobody inside may name one by its number.
fn refuse_outer_modules(component: &[u8]) -> Result<(), NotMerged> {
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ComponentAliasSection(aliases) = payload? else { continue };
        for alias in aliases {
            let ComponentAlias::Outer { kind, .. } = alias? else { continue };
            if kind == ComponentOuterAliasKind::CoreModule {
                return Err(other_form("a core module of an outer component"));
            }
        }
    }
    Ok(())
}

fn merge_scope(component: &[u8], depth: u32, touch: Option<&str>) -> Result<Vec<u8>, NotMerged> {
    let sections = sections(component)?;
    let inner: Vec<Option<Vec<u8>>> = sections
        .iter()
        .map(|section| match section.payload {
            Payload::ComponentSection { .. } if depth > 0 => {
                merge_scope(section.data, depth - 1, None).ok()
            }
            _ => None,
        })
        .collect();
    // Its own parts may have to stay where those of one inside need not.
    let scope = match Scope::follow(&sections) {
        Err(error) if inner.iter().all(Option::is_none) => return Err(error),
        scope => scope.ok(),
    };
    let Some(scope) = scope else { return Ok(copy(&sections, &inner)) };
    let layout = Layout::new(&scope)?;
    let mut writer = Writer::new(&scope, &layout);
    writer.begin()?;
    for (number, (section, inner)) in sections.iter().zip(&inner).enumerate() {
        writer.section(number, section, inner.as_deref())?;
    }
    if let Some(name) = touch.filter(|_| layout.has_large_memory()) {
        touch::export(&mut writer.component, name)?;
    }
    Ok(writer.component.finish())
}

/// The component with what is inside of it replaced.
fn copy(sections: &[Section<'_>], inner: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut component = Component::new();
    for (section, inner) in sections.iter().zip(inner) {
        let data = inner.as_deref().unwrap_or(section.data);
        component.section(&RawSection { id: section.id, data });
    }
    component.finish()
}

/// Writes a component whose parts are merged.
struct Writer<'w, 'a> {
    scope: &'w Scope<'a>,
    layout: &'w Layout<'w, 'a>,
    component: Component,
    /// Whether all parts are there.
    complete: bool,
    early: HashMap<Own, u32>,
    late: HashMap<Own, u32>,
}

/// Indices of the component's core instances.
const FIRST_INSTANCE: u32 = 0;
const CANONICAL_INSTANCE: u32 = 1;
const MERGED_INSTANCE: u32 = 2;

impl<'w, 'a> Writer<'w, 'a> {
    fn new(scope: &'w Scope<'a>, layout: &'w Layout<'w, 'a>) -> Self {
        let component = Component::new();
        let numbered = |functions: &[Own]| functions.iter().copied().zip(0..).collect();
        let (early, late) = (numbered(layout.early()), numbered(layout.late()));
        Self { scope, layout, component, complete: false, early, late }
    }

    /// Both modules, and an instance of the first.
    fn begin(&mut self) -> Result<(), NotMerged> {
        self.component.section(&ModuleSection(&self.layout.first()?));
        let merged = self.layout.merged()?.finish();
        let direct = calls::direct(&merged, self.layout.first_table());
        let merged = direct.unwrap_or(merged);
        let merged = unused::left_out(&merged).unwrap_or(merged);
        self.component.section(&RawSection { id: CORE_MODULE_SECTION, data: &merged });
        let mut instances = InstanceSection::new();
        instances.instantiate(0, [] as [(&str, ModuleArg); 0]);
        self.component.section(&instances);
        let mut aliases = ComponentAliasSection::new();
        if self.scope.memory.is_some() {
            alias(&mut aliases, FIRST_INSTANCE, ExportKind::Memory, MEMORY);
        }
        for number in 0..self.early.len() {
            alias(&mut aliases, FIRST_INSTANCE, ExportKind::Func, &number.to_string());
        }
        self.component.section(&aliases);
        Ok(())
    }

    fn section(
        &mut self,
        number: usize,
        section: &Section<'a>,
        inner: Option<&[u8]>,
    ) -> Result<(), NotMerged> {
        match &section.payload {
            // Names of what is no longer there.
            Payload::ModuleSection { .. } | Payload::CustomSection(_) => {}
            Payload::InstanceSection(_) if number == self.scope.last => self.complete()?,
            Payload::InstanceSection(_) => {}
            Payload::ComponentAliasSection(aliases) => {
                let mut kept = ComponentAliasSection::new();
                for alias in aliases.clone() {
                    let alias = alias?;
                    if !matches!(alias, ComponentAlias::CoreInstanceExport { .. }) {
                        kept.alias(self.component_alias(alias)?);
                    }
                }
                self.component.section(&kept);
            }
            Payload::ComponentCanonicalSection(functions) => {
                let mut written = CanonicalFunctionSection::new();
                self.parse_component_canonical_section(&mut written, functions.clone())?;
                self.component.section(&written);
            }
            Payload::ComponentTypeSection(types) => {
                let mut written = ComponentTypeSection::new();
                self.parse_component_type_section(&mut written, types.clone())?;
                self.component.section(&written);
            }
            _ => {
                let data = inner.unwrap_or(section.data);
                self.component.section(&RawSection { id: section.id, data });
            }
        }
        Ok(())
    }

    /// The instance of the merged module, where the last part was instantiated.
    fn complete(&mut self) -> Result<(), NotMerged> {
        let mut instances = InstanceSection::new();
        let mut functions = Vec::new();
        for (name, canonical) in self.layout.imports().enumerate() {
            functions.push((name.to_string(), ExportKind::Func, self.canonical(canonical)));
        }
        instances.export_items(functions);
        let arguments = [(FIRST, FIRST_INSTANCE), (CANONICAL, CANONICAL_INSTANCE)];
        instances.instantiate(
            1,
            arguments.map(|(name, instance)| (name, ModuleArg::Instance(instance))),
        );
        self.component.section(&instances);
        let mut aliases = ComponentAliasSection::new();
        for number in 0..self.late.len() {
            alias(&mut aliases, MERGED_INSTANCE, ExportKind::Func, &number.to_string());
        }
        self.component.section(&aliases);
        self.complete = true;
        Ok(())
    }

    /// The index of one of the functions that the component makes: after them come
    /// those of the first module, and those of the merged one where it is there.
    fn canonical(&self, number: u32) -> u32 {
        let late = if number < self.scope.canonicals_before { 0 } else { self.late.len() };
        self.early.len() as u32 + number + late as u32
    }
}

fn alias(aliases: &mut ComponentAliasSection, instance: u32, kind: ExportKind, name: &str) {
    aliases.alias(Alias::CoreInstanceExport { instance, kind, name });
}

impl Reencode for Writer<'_, '_> {
    type Error = NotMerged;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<NotMerged>> {
        let function = self.scope.function(index).map_err(reencode::Error::UserError)?;
        let found = match function {
            Function::Canonical(number) => Some(self.canonical(number)),
            Function::Own(own) if self.complete => {
                let first = self.early.len() as u32 + self.scope.canonicals_before;
                self.late.get(&own).map(|number| first + number)
            }
            Function::Own(own) => self.early.get(&own).copied(),
        };
        found.ok_or(reencode::Error::UserError(other_form("a function from elsewhere")))
    }

    fn memory_index(&mut self, _: u32) -> Result<u32, reencode::Error<NotMerged>> {
        Ok(0)
    }
}

impl ReencodeComponent for Writer<'_, '_> {}

#[cfg(test)]
mod tests;
