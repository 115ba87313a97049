//! A core module taken apart.

use wasmparser::{
    Data, Element, Export, FuncType, FunctionBody, Global, Import, KnownCustom, MemoryType, Name,
    Operator, Parser, Payload, Table, TableInit, TypeRef,
};

use super::{NotMerged, other_form};

/// What a core module is made of, each kind in the order of its indices. What is
/// imported is before what is the module's own, and only in `imports`.
#[derive(Default)]
pub(super) struct Module<'a> {
    pub(super) types: Vec<FuncType>,
    pub(super) imports: Vec<Import<'a>>,
    /// The type of each function of its own.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<Table<'a>>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: Vec<Export<'a>>,
    pub(super) start: Option<u32>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data: Vec<Data<'a>>,
    pub(super) bodies: Vec<FunctionBody<'a>>,
    /// Names of functions, for backtraces.
    pub(super) names: Vec<(u32, &'a str)>,
    /// Whether its code may name its data.
    pub(super) names_data: bool,
}

impl<'a> Module<'a> {
    /// Takes apart a module that was validated.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, NotMerged> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            module.take(payload?)?;
        }
        if module.tables.iter().any(|table| !matches!(table.init, TableInit::RefNull)) {
            return Err(other_form("a table that begins with something"));
        }
        Ok(module)
    }

    fn take(&mut self, payload: Payload<'a>) -> Result<(), NotMerged> {
        match payload {
            Payload::TypeSection(section) => {
                extend(&mut self.types, section.into_iter_err_on_gc_types())
            }
            Payload::ImportSection(section) => extend(&mut self.imports, section.into_imports()),
            Payload::FunctionSection(section) => extend(&mut self.functions, section),
            Payload::TableSection(section) => extend(&mut self.tables, section),
            Payload::MemorySection(section) => extend(&mut self.memories, section),
            Payload::GlobalSection(section) => extend(&mut self.globals, section),
            Payload::ExportSection(section) => extend(&mut self.exports, section),
            Payload::ElementSection(section) => extend(&mut self.elements, section),
            Payload::DataSection(section) => extend(&mut self.data, section),
            Payload::StartSection { func, .. } => {
                self.start = Some(func);
                Ok(())
            }
            Payload::CodeSectionEntry(body) => {
                self.bodies.push(body);
                Ok(())
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.take_names(names);
                }
                Ok(())
            }
            Payload::DataCountSection { count, .. } => {
                self.names_data = count > 0;
                Ok(())
            }
            Payload::Version { .. } | Payload::CodeSectionStart { .. } | Payload::End(_) => Ok(()),
            _ => Err(other_form("a section that is not known")),
        }
    }

    /// Names are for people: broken ones are left out.
    fn take_names(&mut self, names: wasmparser::NameSectionReader<'a>) {
        for name in names.into_iter().flatten() {
            if let Name::Function(functions) = name {
                let functions = functions.into_iter().flatten();
                self.names.extend(functions.map(|naming| (naming.index, naming.name)));
            }
        }
    }

    /// The type of a function of its own.
    pub(super) fn function_type(&self, own: u32) -> Option<&FuncType> {
        self.types.get(*self.functions.get(own as usize)? as usize)
    }

    /// If each of its functions only calls what is at a place of its own in its only
    /// table, these places: such a module stands in for functions that can not be
    /// there yet when another one needs them.
    pub(super) fn trampolines(&self) -> Option<Vec<u32>> {
        let only_table = self.tables.len() == 1
            && self.imports.is_empty()
            && self.memories.is_empty()
            && self.globals.is_empty()
            && self.elements.is_empty()
            && self.data.is_empty()
            && self.start.is_none()
            && !self.bodies.is_empty();
        if !only_table {
            return None;
        }
        let trampoline = |(body, ty): (&FunctionBody<'a>, &u32)| {
            let parameters = self.types.get(*ty as usize)?.params().len();
            trampoline(body, *ty, u32::try_from(parameters).ok()?)
        };
        self.bodies.iter().zip(&self.functions).map(trampoline).collect()
    }
}

fn extend<T>(
    items: &mut Vec<T>,
    section: impl IntoIterator<Item = wasmparser::Result<T>>,
) -> Result<(), NotMerged> {
    for item in section {
        items.push(item?);
    }
    Ok(())
}

/// The place in table 0 whose function gets all parameters, if nothing else is done.
fn trampoline(body: &FunctionBody<'_>, ty: u32, parameters: u32) -> Option<u32> {
    let mut code = body.get_operators_reader().ok()?;
    for parameter in 0..parameters {
        match code.read().ok()? {
            Operator::LocalGet { local_index } if local_index == parameter => {}
            _ => return None,
        }
    }
    let Operator::I32Const { value } = code.read().ok()? else { return None };
    match code.read().ok()? {
        Operator::CallIndirect { type_index, table_index: 0 } if type_index == ty => {}
        _ => return None,
    }
    match code.read().ok()? {
        Operator::End if code.eof() => u32::try_from(value).ok(),
        _ => None,
    }
}

/// Whether an import is a function, and of which type.
pub(super) fn imported_function(import: &Import<'_>) -> Option<u32> {
    match import.ty {
        TypeRef::Func(ty) => Some(ty),
        _ => None,
    }
}
