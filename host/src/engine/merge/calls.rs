//! Makes calls through a table direct.
//!
//! A table of functions is part of each instance: a slot of the pool that is cleared
//! after each request, and each of its places is filled when it is first called
//! through. Where code only ever calls through a table, what is in it is known before
//! anything runs. Such a call becomes one of a function that is made here for its type:
//! it goes on to the function at the place that it is given, with the same arguments.
//! The table is no longer needed.
//!
//! What would trap does: those calls go through the table that the first module has.

use std::collections::{BTreeSet, HashMap};

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, ElementSection, Elements, Function as Code, FunctionSection,
    Instruction, NameMap, NameSection, TableSection, TypeSection,
};
use wasmparser::{
    Element, ElementItems, ElementKind, FuncType, Name, Operator, OperatorsReader, Parser, ValType,
};

use super::module::{Module, imported_function};
use super::{NotMerged, other_form};

/// The first module's table, which is imported.
const FIRST_TABLE: u32 = 0;
/// The merged module's own.
const TABLE: u32 = 1;
/// Places of the table times types of calls, at most: each is four bytes of code.
const PLACES_MAX: u64 = 1 << 17;
/// Functions that one of those made here goes on to, at most, and the arguments that all
/// of them pass on: what is uploaded must not grow without bounds. QuickJS, the largest
/// interpreter whose table is left out, has fewer of both.
const TARGETS_MAX: usize = 1 << 10;
const ARGUMENTS_MAX: usize = 1 << 16;
/// What backtraces call the functions that are made here.
const NAME: &str = "call_indirect";

/// What is at the places of the first module's table: so many functions of the merged
/// one, then nothing, then a function without parameters and one with a parameter.
pub(super) struct FirstTable {
    pub(super) functions: u32,
}

impl FirstTable {
    fn empty(&self) -> u32 {
        self.functions
    }

    pub(super) fn without_parameter(&self) -> u32 {
        self.functions + 1
    }

    /// A place whose function is of another type than this.
    fn other_type(&self, ty: &FuncType) -> u32 {
        let place = self.without_parameter();
        if ty.params().is_empty() { place + 1 } else { place }
    }

    pub(super) fn places(&self) -> u32 {
        self.functions + 3
    }
}

/// The merged module without its table, if it only calls through it.
///
/// # Errors
/// When it stays as it is.
pub(super) fn direct(bytes: &[u8], first: Option<FirstTable>) -> Result<Vec<u8>, NotMerged> {
    let first = first.ok_or_else(|| other_form("no table in the first module"))?;
    let module = Module::parse(bytes)?;
    let mut calls = Calls::of(&module, first)?;
    let mut written = wasm_encoder::Module::new();
    calls.parse_core_module(&mut written, Parser::new(0), bytes)?;
    Ok(written.finish())
}

/// The table's places, and the functions that take its place.
struct Calls<'m, 'a> {
    module: &'m Module<'a>,
    first: FirstTable,
    /// The function at each place of the table.
    places: Vec<Option<u32>>,
    /// The types by which the table is called, with their indices.
    types: Vec<(&'m FuncType, u32)>,
    /// Which of them an index of a type is.
    type_of: HashMap<u32, u32>,
    /// The index of each function's type.
    functions: Vec<u32>,
    /// The functions that code refers to. They have to be named outside of it.
    references: BTreeSet<u32>,
}

impl<'m, 'a> Calls<'m, 'a> {
    fn of(module: &'m Module<'a>, first: FirstTable) -> Result<Self, NotMerged> {
        let [table] = module.tables.as_slice() else {
            return Err(other_form("no table of its own, or more than one"));
        };
        let imported = module.imports.iter().filter_map(imported_function);
        let mut calls = Self {
            module,
            first,
            places: Vec::new(),
            types: Vec::new(),
            type_of: HashMap::new(),
            functions: imported.chain(module.functions.iter().copied()).collect(),
            references: BTreeSet::new(),
        };
        let mut known = HashMap::new();
        for body in &module.bodies {
            calls.read(body.get_operators_reader()?, &mut known)?;
        }
        let places = table.ty.initial.saturating_mul(calls.types.len().max(1) as u64);
        if table.ty.table64 || places > PLACES_MAX {
            return Err(other_form("a large table"));
        }
        calls.places.resize(table.ty.initial as usize, None);
        for element in &module.elements {
            calls.fill(element)?;
        }
        let mut arguments = 0;
        for (ty, _) in &calls.types {
            let targets = calls.targets(ty).len();
            arguments += targets * ty.params().len();
            if targets > TARGETS_MAX || arguments > ARGUMENTS_MAX {
                return Err(other_form("a table of many functions"));
            }
        }
        Ok(calls)
    }

    /// Notes by which types the code calls. What else it does with the table is refused
    /// where it is written anew.
    fn read(
        &mut self,
        mut operators: OperatorsReader<'_>,
        known: &mut HashMap<&'m FuncType, u32>,
    ) -> Result<(), NotMerged> {
        while !operators.eof() {
            match operators.read()? {
                Operator::CallIndirect { type_index, table_index: TABLE }
                | Operator::ReturnCallIndirect { type_index, table_index: TABLE } => {
                    self.call(type_index, known)?;
                }
                Operator::RefFunc { function_index } => {
                    self.references.insert(function_index);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        index: u32,
        known: &mut HashMap<&'m FuncType, u32>,
    ) -> Result<(), NotMerged> {
        let ty = self.module.types.get(index as usize);
        let ty = ty.ok_or_else(|| other_form("a call without a type"))?;
        let number = *known.entry(ty).or_insert_with(|| {
            self.types.push((ty, index));
            self.types.len() as u32 - 1
        });
        self.type_of.insert(index, number);
        Ok(())
    }

    /// Puts what the table begins with into its places.
    fn fill(&mut self, element: &Element<'_>) -> Result<(), NotMerged> {
        let ElementKind::Active { table_index: Some(TABLE), offset_expr } = &element.kind else {
            return Ok(());
        };
        let begin = match offset_expr.get_operators_reader().read()? {
            Operator::I32Const { value } => value as u32 as usize,
            _ => return Err(other_form("an offset that is not known before")),
        };
        let ElementItems::Functions(functions) = &element.items else {
            return Err(other_form("elements that are expressions"));
        };
        for (function, place) in functions.clone().into_iter().zip(begin..) {
            let place = self.places.get_mut(place);
            *place.ok_or_else(|| other_form("elements behind the end of their table"))? =
                Some(function?);
        }
        Ok(())
    }

    fn function_type(&self, function: u32) -> Option<&FuncType> {
        self.module.types.get(*self.functions.get(function as usize)? as usize)
    }

    /// The index of the first function that is made here.
    fn made(&self) -> u32 {
        self.functions.len() as u32
    }

    /// The function that is called instead of the table.
    fn instead(&self, type_index: u32) -> Result<u32, reencode::Error<NotMerged>> {
        let number = self.type_of.get(&type_index).ok_or_else(lost)?;
        Ok(self.made() + number)
    }

    /// The functions of a type that are in the table.
    fn targets(&self, ty: &FuncType) -> BTreeSet<u32> {
        let is_of_type = |function: &u32| self.function_type(*function) == Some(ty);
        self.places.iter().flatten().copied().filter(is_of_type).collect()
    }

    /// Goes to what is at the place that is given last.
    fn body(&self, ty: &FuncType, type_index: u32) -> Code {
        let functions = self.targets(ty);
        let arms: HashMap<u32, u32> = functions.iter().copied().zip(0..).collect();
        let empty = functions.len() as u32;
        let (other_type, outside) = (empty + 1, empty + 2);
        let target = |place: &Option<u32>| match place {
            Some(function) => arms.get(function).copied().unwrap_or(other_type),
            None => empty,
        };
        let targets: Vec<u32> = self.places.iter().map(target).collect();
        let parameters = ty.params().len() as u32;
        let mut code = Code::new([]);
        for _ in 0..=outside {
            code.instruction(&Instruction::Block(BlockType::Empty));
        }
        code.instruction(&Instruction::LocalGet(parameters));
        code.instruction(&Instruction::BrTable(targets.into(), outside));
        let mut arm = |instructions: &[Instruction<'_>]| {
            code.instruction(&Instruction::End);
            for parameter in 0..parameters {
                code.instruction(&Instruction::LocalGet(parameter));
            }
            for instruction in instructions {
                code.instruction(instruction);
            }
        };
        for function in functions {
            arm(&[Instruction::ReturnCall(function)]);
        }
        for place in [self.first.empty(), self.first.other_type(ty), u32::MAX] {
            arm(&[
                Instruction::I32Const(place as i32),
                Instruction::ReturnCallIndirect { type_index, table_index: FIRST_TABLE },
            ]);
        }
        code.instruction(&Instruction::End);
        code
    }
}

type Done = Result<(), reencode::Error<NotMerged>>;

fn lost() -> reencode::Error<NotMerged> {
    reencode::Error::UserError(other_form("another use of its table"))
}

impl Reencode for Calls<'_, '_> {
    type Error = NotMerged;

    fn table_index(&mut self, index: u32) -> Result<u32, reencode::Error<NotMerged>> {
        if index == FIRST_TABLE { Ok(index) } else { Err(lost()) }
    }

    fn element_index(&mut self, _: u32) -> Result<u32, reencode::Error<NotMerged>> {
        Err(lost())
    }

    fn instruction<'i>(
        &mut self,
        operator: Operator<'i>,
    ) -> Result<Instruction<'i>, reencode::Error<NotMerged>> {
        match operator {
            Operator::CallIndirect { type_index, table_index: TABLE } => {
                Ok(Instruction::Call(self.instead(type_index)?))
            }
            Operator::ReturnCallIndirect { type_index, table_index: TABLE } => {
                Ok(Instruction::ReturnCall(self.instead(type_index)?))
            }
            operator => utils::instruction(self, operator),
        }
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Done {
        utils::parse_type_section(self, types, section)?;
        for (ty, _) in self.types.clone() {
            let parameters = ty.params().iter().copied().chain([ValType::I32]);
            let ty = FuncType::new(parameters, ty.results().iter().copied());
            types.ty().func_type(&self.func_type(ty)?);
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Done {
        utils::parse_function_section(self, functions, section)?;
        for ty in (self.module.types.len() as u32..).take(self.types.len()) {
            functions.function(ty);
        }
        Ok(())
    }

    fn parse_table_section(
        &mut self,
        _: &mut TableSection,
        _: wasmparser::TableSectionReader<'_>,
    ) -> Done {
        Ok(())
    }

    fn parse_element_section(
        &mut self,
        elements: &mut ElementSection,
        section: wasmparser::ElementSectionReader<'_>,
    ) -> Done {
        utils::parse_element_section(self, elements, section)?;
        if !self.references.is_empty() {
            let functions: Vec<u32> = self.references.iter().copied().collect();
            elements.declared(Elements::Functions(functions.into()));
        }
        Ok(())
    }

    fn parse_element(&mut self, elements: &mut ElementSection, element: Element<'_>) -> Done {
        match element.kind {
            // It filled the table; or named what code refers to, which is all named anew.
            ElementKind::Active { table_index: Some(TABLE), .. } | ElementKind::Declared => Ok(()),
            _ => utils::parse_element(self, elements, element),
        }
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Done {
        utils::parse_code_section(self, code, section)?;
        for (ty, index) in &self.types {
            code.function(&self.body(ty, *index));
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
        let mut all = NameMap::new();
        for naming in functions {
            let naming = naming?;
            all.append(naming.index, naming.name);
        }
        for made in (self.made()..).take(self.types.len()) {
            all.append(made, NAME);
        }
        names.functions(&all);
        Ok(())
    }
}
