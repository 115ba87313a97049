//! The two core modules that a component's parts become.

use std::collections::HashMap;

use wasm_encoder::reencode::{self, Reencode, RoundtripReencoder};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataCountSection, DataSection, ElementMode, ElementSection,
    ElementSegment, Elements, EntityType, ExportKind, ExportSection, Function as Code,
    FunctionSection, GlobalSection, GlobalType, ImportSection, Instruction, MemorySection, NameMap,
    NameSection, RefType, StartSection, TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{DataKind, ElementKind, Operator};

use super::calls::FirstTable;
use super::module::imported_function;
use super::named::Named;
use super::scope::{Constant, Function, Own, Part, Scope, is_active};
use super::{NotMerged, other_form, touch};

/// What imports of the merged module are called by.
pub(super) const FIRST: &str = "first";
pub(super) const CANONICAL: &str = "canonical";
/// Exports of the first module. The functions that it calls in the merged one are
/// called by their numbers.
pub(super) const MEMORY: &str = "memory";
const TABLE: &str = "table";

/// Where the parts' items are in the merged module.
pub(super) struct Layout<'s, 'a> {
    scope: &'s Scope<'a>,
    /// What it imports of the component's functions.
    imports: Vec<Import>,
    import_of: HashMap<u32, u32>,
    /// The imports, by their index, that may call functions in the first module's table.
    /// For each there is a function that puts them there when it is first called. Empty
    /// if others may call them too: then they are there from the beginning.
    filling: Vec<u32>,
    /// How many functions and globals the parts have.
    functions: u32,
    globals: u32,
    bases: Vec<Base>,
    /// Functions that the component needs before the merged module is there: the
    /// first module has one for each of them, which finds it in a table.
    early: Vec<Own>,
    /// Those that it needs afterwards.
    late: Vec<Own>,
    /// The data segments that code names, in their order.
    data: Vec<Own>,
}

/// One of the component's functions, as the merged module imports it.
struct Import {
    /// Which of those that the component makes.
    canonical: u32,
    /// Its type in the merged module.
    ty: u32,
    parameters: u32,
}

/// The index of the first of a part's own items, of each kind.
#[derive(Default, Clone, Copy)]
struct Base {
    types: u32,
    functions: u32,
    tables: u32,
    globals: u32,
    elements: u32,
}

impl<'s, 'a> Layout<'s, 'a> {
    pub(super) fn new(scope: &'s Scope<'a>) -> Result<Self, NotMerged> {
        let (mut early, mut late) = (Vec::new(), Vec::new());
        for (is_early, own) in scope.named()? {
            let functions = if is_early { &mut early } else { &mut late };
            if !functions.contains(&own) {
                functions.push(own);
            }
        }
        let mut layout = Self {
            scope,
            imports: Vec::new(),
            import_of: HashMap::new(),
            filling: Vec::new(),
            functions: 0,
            globals: 0,
            bases: Vec::new(),
            early,
            late,
            data: Vec::new(),
        };
        let mut next = Base { tables: layout.has_table().into(), ..Base::default() };
        for (number, part) in scope.parts.iter().enumerate() {
            layout.import(part, next.types);
            layout.bases.push(next);
            if part.module.names_data {
                let named = Named::of(part)?.data.into_iter();
                layout.data.extend(named.map(|index| Own { part: number, index }));
            }
            if !part.stands_in() {
                let module = &part.module;
                next.types += module.types.len() as u32;
                next.functions += module.functions.len() as u32;
                next.tables += module.tables.len() as u32;
                next.globals += module.globals.len() as u32;
                next.elements += module.elements.len() as u32;
            }
        }
        for base in &mut layout.bases {
            base.functions += layout.imports.len() as u32;
        }
        (layout.functions, layout.globals) = (next.functions, next.globals);
        if layout.has_table() && !scope.destroys {
            let filling = (0..).zip(layout.imports());
            let filling = filling.filter(|(_, canonical)| scope.allocates(*canonical));
            layout.filling = filling.map(|(index, _)| index).collect();
        }
        Ok(layout)
    }

    /// Imports what a part needs of the component itself.
    fn import(&mut self, part: &Part<'_>, types: u32) {
        let module = &part.module;
        let is_used = !module.functions.is_empty()
            || !module.globals.is_empty()
            || module.start.is_some()
            || module.elements.iter().any(|element| self.scope.is_kept(part, element));
        if !is_used {
            return;
        }
        let functions = module.imports.iter().filter_map(imported_function);
        for (ty, function) in functions.zip(&part.spaces.functions) {
            if let Function::Canonical(number) = self.scope.target(*function) {
                let index = self.imports.len() as u32;
                self.import_of.entry(number).or_insert_with(|| {
                    let parameters =
                        module.types.get(ty as usize).map_or(0, |ty| ty.params().len());
                    let (ty, parameters) = (types + ty, parameters as u32);
                    self.imports.push(Import { canonical: number, ty, parameters });
                    index
                });
            }
        }
    }

    fn has_table(&self) -> bool {
        !self.early.is_empty()
    }

    /// Whether it takes long to make the memory new.
    pub(super) fn has_large_memory(&self) -> bool {
        self.scope.memory.is_some_and(|memory| memory.initial >= touch::MEMORY_PAGES_MIN)
    }

    /// The component's functions that the merged module imports, in this order.
    pub(super) fn imports(&self) -> impl Iterator<Item = u32> {
        self.imports.iter().map(|import| import.canonical)
    }

    pub(super) fn early(&self) -> &[Own] {
        &self.early
    }

    pub(super) fn late(&self) -> &[Own] {
        &self.late
    }

    fn function(&self, function: Function) -> Option<u32> {
        match self.scope.target(function) {
            Function::Canonical(number) => {
                let import = *self.import_of.get(&number)?;
                let filling = self.filling.iter().position(|it| *it == import);
                Some(filling.map_or(import, |number| self.first_filling() + number as u32))
            }
            Function::Own(own) => Some(self.bases.get(own.part)?.functions + own.index),
        }
    }

    /// The index of the first of the functions that fill the table: they come after
    /// those of all parts.
    fn first_filling(&self) -> u32 {
        self.imports.len() as u32 + self.functions
    }

    fn filling(&self) -> impl Iterator<Item = (u32, &Import)> {
        let import = |index: &u32| Some((*index, self.imports.get(*index as usize)?));
        self.filling.iter().filter_map(import)
    }

    fn parts(&self) -> impl Iterator<Item = (&'s Part<'a>, Encoder<'_, 's, 'a>)> {
        let scope = self.scope;
        let parts = scope.parts.iter().zip(&self.bases).enumerate();
        let kept = parts.filter(|(_, (part, _))| !part.stands_in());
        kept.map(move |(number, (part, base))| {
            (part, Encoder { layout: self, number, part, base: *base })
        })
    }

    /// The module that is there first: the memory with what it begins with, and a way
    /// to each function that is needed before it is there.
    pub(super) fn first(&self) -> Result<wasm_encoder::Module, NotMerged> {
        let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
        let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
        let (mut tables, mut elements) = (TableSection::new(), ElementSection::new());
        for (number, own) in (0_u32..).zip(&self.early) {
            let part = self.scope.parts.get(own.part);
            let ty = part.and_then(|part| part.module.function_type(own.index));
            let ty = ty.ok_or_else(|| other_form("a function without a type"))?;
            types.ty().func_type(&RoundtripReencoder.func_type(ty.clone())?);
            functions.function(number);
            exports.export(&number.to_string(), ExportKind::Func, number);
            let mut body = Code::new([]);
            let mut instructions = body.instructions();
            for parameter in 0..ty.params().len() as u32 {
                instructions.local_get(parameter);
            }
            instructions.i32_const(number as i32).call_indirect(0, number).end();
            code.function(&body);
        }
        if let Some(table) = self.first_table() {
            tables.table(table_type(&table));
            exports.export(TABLE, ExportKind::Table, 0);
            let first = functions.len();
            for parameters in [&[][..], &[ValType::I32]] {
                functions.function(types.len());
                types.ty().function(parameters.iter().copied(), []);
                code.function(Code::new([]).instruction(&Instruction::End));
            }
            let begin = ConstExpr::i32_const(table.without_parameter() as i32);
            let both = [first, first + 1];
            elements.active(None, &begin, Elements::Functions(both.as_slice().into()));
        }
        let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
        if let Some(memory) = self.scope.memory {
            memories.memory(RoundtripReencoder.memory_type(memory)?);
            exports.export(MEMORY, ExportKind::Memory, 0);
        }
        if self.has_large_memory() {
            exports.export(touch::TOUCH, ExportKind::Func, functions.len());
            functions.function(types.len());
            types.ty().function([ValType::I32; 2], [ValType::I32]);
            code.function(&touch::body());
        }
        for (part, encoder) in self.parts() {
            for segment in &part.module.data {
                if let DataKind::Active { offset_expr, .. } = &segment.kind {
                    data.active(0, &encoder.number(offset_expr)?, segment.data.iter().copied());
                }
            }
        }
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&functions).section(&tables).section(&memories);
        module.section(&exports).section(&elements).section(&code).section(&data);
        Ok(module)
    }

    /// The table of the first module, if it calls functions of the merged one.
    pub(super) fn first_table(&self) -> Option<FirstTable> {
        self.has_table().then_some(FirstTable { functions: self.early.len() as u32 })
    }

    /// The module that all parts' code is in.
    pub(super) fn merged(&self) -> Result<wasm_encoder::Module, NotMerged> {
        let mut module = wasm_encoder::Module::new();
        let (types, start) = self.types()?;
        module.section(&types).section(&self.imported()?);
        let (mut functions, mut tables) = (FunctionSection::new(), TableSection::new());
        let mut globals = GlobalSection::new();
        for (part, mut encoder) in self.parts() {
            for ty in &part.module.functions {
                functions.function(encoder.type_index(*ty)?);
            }
            for table in &part.module.tables {
                tables.table(encoder.table_type(table.ty)?);
            }
            for global in &part.module.globals {
                let begins = encoder.number_or_same(&global.init_expr)?;
                globals.global(encoder.global_type(global.ty)?, &begins);
            }
        }
        for (_, import) in self.filling() {
            functions.function(import.ty);
        }
        if !self.filling.is_empty() {
            let is_filled = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            globals.global(is_filled, &ConstExpr::i32_const(0));
        }
        let starts = self.starts()?;
        let start_index = match starts.as_slice() {
            [] => None,
            [only] => Some(*only),
            _ => {
                functions.function(start);
                Some(self.imports.len() as u32 + functions.len() - 1)
            }
        };
        module.section(&functions).section(&tables).section(&globals);
        module.section(&self.exports()?);
        if let Some(function_index) = start_index {
            module.section(&StartSection { function_index });
        }
        module.section(&self.elements()?);
        let data = self.data();
        if !data.is_empty() {
            module.section(&DataCountSection { count: data.len() });
        }
        let mut code = CodeSection::new();
        for (part, mut encoder) in self.parts() {
            for body in &part.module.bodies {
                encoder.parse_function_body(&mut code, body.clone())?;
            }
        }
        for (index, import) in self.filling() {
            code.function(&self.fill(index, import)?);
        }
        if starts.len() > 1 {
            let mut body = Code::new([]);
            for start in &starts {
                body.instructions().call(*start);
            }
            body.instructions().end();
            code.function(&body);
        }
        module.section(&code);
        if !data.is_empty() {
            module.section(&data);
        }
        module.section(&self.names());
        Ok(module)
    }

    /// Puts the functions into the first module's table that it calls, once, and goes
    /// on to the import that may need them. As elements they would be put there when the
    /// module is instantiated, which takes a stack of its own and is often in vain.
    fn fill(&self, index: u32, import: &Import) -> Result<Code, NotMerged> {
        let mut code = Code::new([]);
        let mut body = code.instructions();
        body.global_get(self.globals).i32_eqz().if_(BlockType::Empty);
        for (place, own) in (0..).zip(&self.early) {
            body.i32_const(place).ref_func(self.own_function(*own)?).table_set(0);
        }
        body.i32_const(1).global_set(self.globals).end();
        for parameter in 0..import.parameters {
            body.local_get(parameter);
        }
        body.return_call(index).end();
        Ok(code)
    }

    /// All types, and the index of one for a function that calls others.
    fn types(&self) -> Result<(TypeSection, u32), NotMerged> {
        let mut types = TypeSection::new();
        for (part, mut encoder) in self.parts() {
            for ty in &part.module.types {
                types.ty().func_type(&encoder.func_type(ty.clone())?);
            }
        }
        types.ty().function([], []);
        let last = types.len() - 1;
        Ok((types, last))
    }

    fn imported(&self) -> Result<ImportSection, NotMerged> {
        let mut imports = ImportSection::new();
        for (number, import) in self.imports.iter().enumerate() {
            imports.import(CANONICAL, &number.to_string(), EntityType::Function(import.ty));
        }
        if let Some(memory) = self.scope.memory {
            let memory = RoundtripReencoder.memory_type(memory)?;
            imports.import(FIRST, MEMORY, EntityType::Memory(memory));
        }
        if let Some(table) = self.first_table() {
            imports.import(FIRST, TABLE, EntityType::Table(table_type(&table)));
        }
        Ok(imports)
    }

    fn exports(&self) -> Result<ExportSection, NotMerged> {
        let mut exports = ExportSection::new();
        for (number, own) in self.late.iter().enumerate() {
            exports.export(&number.to_string(), ExportKind::Func, self.own_function(*own)?);
        }
        Ok(exports)
    }

    fn own_function(&self, own: Own) -> Result<u32, NotMerged> {
        self.function(Function::Own(own)).ok_or_else(|| other_form("a function that is left out"))
    }

    fn starts(&self) -> Result<Vec<u32>, NotMerged> {
        let mut starts = Vec::new();
        for (part, mut encoder) in self.parts() {
            if let Some(start) = part.module.start {
                starts.push(encoder.function_index(start)?);
            }
        }
        Ok(starts)
    }

    fn elements(&self) -> Result<ElementSection, NotMerged> {
        let mut elements = ElementSection::new();
        for (part, mut encoder) in self.parts() {
            for element in &part.module.elements {
                if !self.scope.is_kept(part, element) {
                    // For the code, what has filled a table is used up, as what is
                    // declared is. Passive, it would be made when instantiated.
                    elements.declared(Elements::Functions([].as_slice().into()));
                    continue;
                }
                let items = encoder.element_items(element.items.clone())?;
                let offset;
                let mode = match &element.kind {
                    ElementKind::Passive => ElementMode::Passive,
                    ElementKind::Declared => ElementMode::Declared,
                    ElementKind::Active { table_index, offset_expr } => {
                        offset = encoder.number(offset_expr)?;
                        let table = encoder.table_index(table_index.unwrap_or(0))?;
                        let table = Some(table).filter(|table| *table != 0);
                        ElementMode::Active { table, offset: &offset }
                    }
                };
                elements.segment(ElementSegment { mode, elements: items });
            }
        }
        if self.has_table() {
            let functions = self.early.iter().map(|own| self.own_function(*own));
            let functions = functions.collect::<Result<Vec<_>, _>>()?;
            let functions = Elements::Functions(functions.into());
            if self.scope.destroys {
                elements.active(None, &ConstExpr::i32_const(0), functions);
            } else {
                // For the code that puts them there.
                elements.declared(functions);
            }
        }
        Ok(elements)
    }

    /// What the code names of the data. What the memory begins with is in the first
    /// module, and for the code it is as if it had been used up.
    fn data(&self) -> DataSection {
        let mut data = DataSection::new();
        for own in &self.data {
            let part = self.scope.parts.get(own.part);
            let segment = part.and_then(|part| part.module.data.get(own.index as usize));
            let bytes = segment.filter(|segment| !is_active(&segment.kind)).map(|it| it.data);
            data.passive(bytes.unwrap_or_default().iter().copied());
        }
        data
    }

    /// For backtraces.
    fn names(&self) -> NameSection {
        let mut functions = NameMap::new();
        for (part, encoder) in self.parts() {
            let imported = (part.spaces.functions.len() - part.module.functions.len()) as u32;
            let own = part.module.functions.len() as u32;
            let mut last = None;
            for (index, name) in &part.module.names {
                let index = index.checked_sub(imported).filter(|index| *index < own);
                // In order, each once: else the whole section would be refused.
                if let Some(index) = index.filter(|index| last < Some(*index)) {
                    functions.append(encoder.base.functions + index, name);
                    last = Some(index);
                }
            }
        }
        let mut names = NameSection::new();
        names.functions(&functions);
        names
    }
}

fn table_type(table: &FirstTable) -> TableType {
    let places = u64::from(table.places());
    TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: places,
        maximum: Some(places),
        shared: false,
    }
}

/// Brings a part's indices to where they are in the merged module.
struct Encoder<'l, 's, 'a> {
    layout: &'l Layout<'s, 'a>,
    /// The part's.
    number: usize,
    part: &'l Part<'a>,
    base: Base,
}

type Index = Result<u32, reencode::Error<NotMerged>>;

fn lost() -> reencode::Error<NotMerged> {
    reencode::Error::UserError(other_form("an index of what is left out"))
}

impl Encoder<'_, '_, '_> {
    /// A constant expression that has to be a number.
    fn number(&self, expression: &wasmparser::ConstExpr<'_>) -> Result<ConstExpr, NotMerged> {
        match self.layout.scope.constant(&self.part.spaces, expression) {
            Some(Constant::I32(value)) => Ok(ConstExpr::i32_const(value)),
            Some(Constant::I64(value)) => Ok(ConstExpr::i64_const(value)),
            None => Err(other_form("an offset that is not known before")),
        }
    }

    /// The same, or one that refers to no global: globals that were imported no longer
    /// are, and only those can be referred to.
    fn number_or_same(
        &mut self,
        expression: &wasmparser::ConstExpr<'_>,
    ) -> Result<ConstExpr, NotMerged> {
        let is_global = |operator| matches!(operator, Ok(Operator::GlobalGet { .. }));
        if expression.get_operators_reader().into_iter().any(is_global) {
            return self.number(expression);
        }
        Ok(self.const_expr(expression.clone())?)
    }
}

impl Reencode for Encoder<'_, '_, '_> {
    type Error = NotMerged;

    fn type_index(&mut self, index: u32) -> Index {
        Ok(self.base.types + index)
    }

    fn function_index(&mut self, index: u32) -> Index {
        let function = self.part.spaces.functions.get(index as usize);
        function.and_then(|it| self.layout.function(*it)).ok_or_else(lost)
    }

    fn table_index(&mut self, index: u32) -> Index {
        let table = self.part.spaces.tables.get(index as usize).ok_or_else(lost)?;
        if self.layout.scope.is_left_out(*table) {
            return Err(lost());
        }
        let base = self.layout.bases.get(table.part).ok_or_else(lost)?;
        Ok(base.tables + table.index)
    }

    fn memory_index(&mut self, _: u32) -> Index {
        Ok(0)
    }

    fn global_index(&mut self, index: u32) -> Index {
        let global = self.part.spaces.globals.get(index as usize).ok_or_else(lost)?;
        let base = self.layout.bases.get(global.part).ok_or_else(lost)?;
        Ok(base.globals + global.index)
    }

    fn element_index(&mut self, index: u32) -> Index {
        Ok(self.base.elements + index)
    }

    fn data_index(&mut self, index: u32) -> Index {
        let own = Own { part: self.number, index };
        let found = self.layout.data.binary_search(&own);
        found.map(|index| index as u32).map_err(|_| lost())
    }
}
