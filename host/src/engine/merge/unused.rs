//! Leaves out functions that nothing calls.
//!
//! Each import is looked up for each instance, whether it is called or not. A library
//! has imports for all that it can do; and what one part offered to another may be
//! more than the other one needs. Once all parts are one module it is known what is
//! called, and from where.

use std::collections::HashMap;

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    CodeSection, ElementSection, Elements, FunctionSection, ImportSection, NameMap, NameSection,
};
use wasmparser::{
    ConstExpr, Element, ElementItems, ElementKind, ExternalKind, FunctionBody, Name, Operator,
    Parser,
};

use super::module::{Module, imported_function};
use super::{NotMerged, other_form};

/// The merged module without functions and imports that nothing calls.
///
/// # Errors
/// When it stays as it is.
pub(super) fn left_out(bytes: &[u8]) -> Result<Vec<u8>, NotMerged> {
    let module = Module::parse(bytes)?;
    let mut used = Used::of(&module)?;
    let mut written = wasm_encoder::Module::new();
    used.parse_core_module(&mut written, Parser::new(0), bytes)?;
    Ok(written.finish())
}

/// What can be called, and the index that it gets.
struct Used {
    imported: u32,
    functions: HashMap<u32, u32>,
    /// How many of the module's own functions were written: their types, and their code.
    types_read: u32,
    bodies_read: u32,
}

impl Used {
    fn of(module: &Module<'_>) -> Result<Self, NotMerged> {
        let imported = module.imports.iter().filter_map(imported_function).count() as u32;
        let all = imported + module.functions.len() as u32;
        let mut is_used = vec![false; all as usize];
        let mut to_follow = roots(module)?;
        while let Some(function) = to_follow.pop() {
            let seen = is_used.get_mut(function as usize);
            let seen = seen.ok_or_else(|| other_form("a function that is not there"))?;
            if !std::mem::replace(seen, true)
                && let Some(own) = function.checked_sub(imported)
                && let Some(body) = module.bodies.get(own as usize)
            {
                follow(body, &mut to_follow)?;
            }
        }
        let used =
            (0..all).zip(is_used).filter_map(|(function, is_used)| is_used.then_some(function));
        let functions = used.zip(0..).collect();
        Ok(Self { imported, functions, types_read: 0, bodies_read: 0 })
    }

    fn is_used(&self, function: u32) -> bool {
        self.functions.contains_key(&function)
    }
}

/// What may be called from outside, or through a table.
fn roots(module: &Module<'_>) -> Result<Vec<u32>, NotMerged> {
    let exported = module.exports.iter().filter(|export| export.kind == ExternalKind::Func);
    let mut roots: Vec<u32> = exported.map(|export| export.index).chain(module.start).collect();
    for element in &module.elements {
        match &element.items {
            // Named for the code that refers to them.
            _ if matches!(element.kind, ElementKind::Declared) => {}
            ElementItems::Functions(functions) => {
                for function in functions.clone() {
                    roots.push(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions.clone() {
                    refers_to(&expression?, &mut roots)?;
                }
            }
        }
    }
    for global in &module.globals {
        refers_to(&global.init_expr, &mut roots)?;
    }
    Ok(roots)
}

fn refers_to(expression: &ConstExpr<'_>, functions: &mut Vec<u32>) -> Result<(), NotMerged> {
    for operator in expression.get_operators_reader() {
        if let Operator::RefFunc { function_index } = operator? {
            functions.push(function_index);
        }
    }
    Ok(())
}

fn follow(body: &FunctionBody<'_>, functions: &mut Vec<u32>) -> Result<(), NotMerged> {
    for operator in body.get_operators_reader()? {
        if let Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } = operator?
        {
            functions.push(function_index);
        }
    }
    Ok(())
}

type Done = Result<(), reencode::Error<NotMerged>>;

impl Reencode for Used {
    type Error = NotMerged;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<NotMerged>> {
        let lost = || reencode::Error::UserError(other_form("a function that nothing calls"));
        self.functions.get(&index).copied().ok_or_else(lost)
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Done {
        let mut function = 0..;
        for import in section.into_imports() {
            let import = import?;
            let index = imported_function(&import).and_then(|_| function.next());
            if index.is_none_or(|index| self.is_used(index)) {
                utils::parse_import(self, imports, import)?;
            }
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Done {
        for ty in section {
            let ty = self.type_index(ty?)?;
            if self.is_used(self.imported + self.types_read) {
                functions.function(ty);
            }
            self.types_read += 1;
        }
        Ok(())
    }

    fn parse_element(&mut self, elements: &mut ElementSection, element: Element<'_>) -> Done {
        match (&element.kind, &element.items) {
            (ElementKind::Declared, ElementItems::Functions(functions)) => {
                let mut kept = Vec::new();
                for function in functions.clone() {
                    kept.extend(self.functions.get(&function?));
                }
                elements.declared(Elements::Functions(kept.into()));
                Ok(())
            }
            _ => utils::parse_element(self, elements, element),
        }
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Done {
        let own = self.bodies_read;
        self.bodies_read += 1;
        if self.is_used(self.imported + own) {
            utils::parse_function_body(self, code, body)?;
        }
        Ok(())
    }

    fn parse_custom_name_subsection(
        &mut self,
        names: &mut NameSection,
        subsection: Name<'_>,
    ) -> Done {
        let Name::Function(functions) = subsection else {
            return utils::parse_custom_name_subsection(self, names, subsection);
        };
        let mut kept = NameMap::new();
        for naming in functions {
            let naming = naming?;
            if let Some(index) = self.functions.get(&naming.index) {
                kept.append(*index, naming.name);
            }
        }
        names.functions(&kept);
        Ok(())
    }
}
