//! The core instances of one component, and how they are connected.

use std::collections::{HashMap, HashSet};

use wasm_encoder::Encode as _;
use wasm_encoder::reencode::ReencodeComponent;
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, ConstExpr, DataKind, Element, ElementItems,
    ElementKind, ExternalKind, Instance, InstantiationArg, MemoryType, Operator, Parser, Payload,
};

use super::module::Module;
use super::named::{Named, Names, Uses};
use super::{NotMerged, other_form};
use crate::engine::pool::TABLES_PER_MODULE_MAX;

/// One section of a component. What is nested is one section.
pub(super) struct Section<'a> {
    pub(super) id: u8,
    pub(super) data: &'a [u8],
    pub(super) payload: Payload<'a>,
}

/// The sections of a component.
pub(super) fn sections(component: &[u8]) -> Result<Vec<Section<'_>>, NotMerged> {
    let (mut sections, mut depth) = (Vec::new(), 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        let is_outermost = depth == 0;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some((id, range)) = payload.as_section().filter(|_| is_outermost) else { continue };
        let data = component.get(range).unwrap_or_default();
        sections.push(Section { id, data, payload });
    }
    Ok(sections)
}

/// What a part has itself: the part, and the index among what is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Own {
    pub(super) part: usize,
    pub(super) index: u32,
}

/// Where a function comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Function {
    /// One of those that the component makes, by their order.
    Canonical(u32),
    /// A part's.
    Own(Own),
}

/// What an instance can be asked for.
#[derive(Debug, Clone, Copy)]
enum Item {
    Function(Function),
    Table(Own),
    Memory(Own),
    Global(Own),
}

/// What indices stand for.
#[derive(Default)]
pub(super) struct Spaces {
    pub(super) functions: Vec<Function>,
    pub(super) tables: Vec<Own>,
    memories: Vec<Own>,
    pub(super) globals: Vec<Own>,
}

impl Spaces {
    fn push(&mut self, item: Item) {
        match item {
            Item::Function(function) => self.functions.push(function),
            Item::Table(table) => self.tables.push(table),
            Item::Memory(memory) => self.memories.push(memory),
            Item::Global(global) => self.globals.push(global),
        }
    }

    fn get(&self, kind: ExternalKind, index: u32) -> Result<Item, NotMerged> {
        let index = index as usize;
        let item = match kind {
            ExternalKind::Func => self.functions.get(index).copied().map(Item::Function),
            ExternalKind::Table => self.tables.get(index).copied().map(Item::Table),
            ExternalKind::Memory => self.memories.get(index).copied().map(Item::Memory),
            ExternalKind::Global => self.globals.get(index).copied().map(Item::Global),
            _ => None,
        };
        item.ok_or_else(|| other_form("an item of a kind that is not known"))
    }
}

/// An instance of a core module, each of its indices resolved.
pub(super) struct Part<'a> {
    pub(super) module: Module<'a>,
    pub(super) spaces: Spaces,
    /// If its functions only call others: these.
    stands_for: Option<Vec<Function>>,
}

impl Part<'_> {
    /// Whether nothing of it is needed, because its functions only call others.
    pub(super) fn stands_in(&self) -> bool {
        self.stands_for.is_some()
    }
}

/// A number that is known before anything runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

/// A core function that the component itself names, as a handler or to allocate.
pub(super) struct Use {
    /// Its index in the component.
    index: u32,
    /// The section that names it.
    pub(super) section: usize,
    /// How many core functions the component had made until there.
    canonicals: u32,
}

/// One component, without what is nested in it.
#[derive(Default)]
pub(super) struct Scope<'a> {
    modules: Vec<&'a [u8]>,
    instantiated: HashSet<u32>,
    instances: Vec<HashMap<&'a str, Item>>,
    pub(super) parts: Vec<Part<'a>>,
    spaces: Spaces,
    names: Names<'a>,
    /// The first of the core functions that are made in the same way.
    made: HashMap<Vec<u8>, u32>,
    constants: HashMap<Own, Constant>,
    uses: Vec<Use>,
    /// Those that may call one of the parts' functions, to allocate.
    allocating: HashSet<u32>,
    /// Whether a type has one of the parts' functions to destroy its resources.
    pub(super) destroys: bool,
    /// How many core functions the component makes.
    canonicals: u32,
    /// The section that instantiates the last part.
    pub(super) last: usize,
    /// How many core functions the component had made until there.
    pub(super) canonicals_before: u32,
    /// Whether a part can have been called.
    entered: bool,
    /// The only memory.
    pub(super) memory: Option<MemoryType>,
    /// Tables that only stand-ins use.
    tables_left_out: HashSet<Own>,
}

impl<'a> Scope<'a> {
    /// Follows the sections of a component that was validated.
    pub(super) fn follow(sections: &[Section<'a>]) -> Result<Self, NotMerged> {
        let mut scope = Self::default();
        for (number, section) in sections.iter().enumerate() {
            scope.section(number, section)?;
        }
        // The memory's module and the merged one are two.
        if scope.parts.len() < 3 {
            return Err(NotMerged::Nothing);
        }
        scope.find_memory()?;
        scope.find_stand_ins();
        scope.check_tables()?;
        scope.check_starts()?;
        Ok(scope)
    }

    fn section(&mut self, number: usize, section: &Section<'a>) -> Result<(), NotMerged> {
        match &section.payload {
            Payload::ModuleSection { .. } => self.modules.push(section.data),
            Payload::InstanceSection(instances) => {
                each(instances, |instance| self.instance(number, instance))?;
            }
            Payload::ComponentCanonicalSection(functions) => {
                each(functions, |function| self.canonical(number, function))?;
            }
            Payload::ComponentAliasSection(aliases) => each(aliases, |alias| self.alias(alias))?,
            Payload::ComponentTypeSection(types) => {
                let mut encoded = wasm_encoder::ComponentTypeSection::new();
                let mut uses = Uses::new(&self.names);
                uses.parse_component_type_section(&mut encoded, types.clone())?;
                self.destroys |= !uses.functions.is_empty();
                self.note(number, uses.functions);
                for _ in 0..types.count() {
                    self.names.types.push(None);
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                each(instances, |instance| self.component_instance(&instance))?;
            }
            Payload::ComponentImportSection(imports) => {
                each(imports, |import| self.import(import.ty))?;
            }
            Payload::ComponentExportSection(exports) => {
                each(exports, |export| self.component_item(export.kind, None))?;
            }
            Payload::ComponentSection { .. }
            | Payload::CoreTypeSection(_)
            | Payload::CustomSection(_) => {}
            _ => return Err(other_form("a section that is not known")),
        }
        Ok(())
    }

    fn instance(&mut self, number: usize, instance: Instance<'a>) -> Result<(), NotMerged> {
        let exports = match instance {
            Instance::Instantiate { module_index, args } => {
                if self.entered {
                    return Err(other_form("parts that run before all are there"));
                }
                if !self.instantiated.insert(module_index) {
                    return Err(other_form("two instances of a core module"));
                }
                (self.last, self.canonicals_before) = (number, self.canonicals);
                self.instantiate(module_index, &args)?
            }
            Instance::FromExports(exports) => exports
                .iter()
                .map(|export| Ok((export.name, self.spaces.get(export.kind, export.index)?)))
                .collect::<Result<_, NotMerged>>()?,
        };
        self.instances.push(exports);
        Ok(())
    }

    fn instantiate(
        &mut self,
        module: u32,
        arguments: &[InstantiationArg<'a>],
    ) -> Result<HashMap<&'a str, Item>, NotMerged> {
        let bytes = self.modules.get(module as usize).copied();
        let module =
            Module::parse(bytes.ok_or_else(|| other_form("a core module from elsewhere"))?)?;
        let arguments: HashMap<&str, u32> =
            arguments.iter().map(|argument| (argument.name, argument.index)).collect();
        let mut spaces = Spaces::default();
        for import in &module.imports {
            let instance = arguments.get(import.module).copied();
            spaces.push(self.export(instance.unwrap_or(u32::MAX), import.name)?);
        }
        let part = self.parts.len();
        let own = |count: usize| (0..count as u32).map(move |index| Own { part, index });
        spaces.functions.extend(own(module.functions.len()).map(Function::Own));
        spaces.tables.extend(own(module.tables.len()));
        spaces.memories.extend(own(module.memories.len()));
        for (global, own) in module.globals.iter().zip(own(module.globals.len())) {
            if !global.ty.mutable
                && let Some(constant) = self.constant(&spaces, &global.init_expr)
            {
                self.constants.insert(own, constant);
            }
            spaces.globals.push(own);
        }
        let exports = module
            .exports
            .iter()
            .map(|export| Ok((export.name, spaces.get(export.kind, export.index)?)))
            .collect::<Result<_, NotMerged>>()?;
        self.parts.push(Part { module, spaces, stands_for: None });
        Ok(exports)
    }

    fn canonical(&mut self, number: usize, function: CanonicalFunction) -> Result<(), NotMerged> {
        use CanonicalFunction::{Lift, ThreadNewIndirect, ThreadSpawnIndirect};
        if matches!(function, ThreadSpawnIndirect { .. } | ThreadNewIndirect { .. }) {
            return Err(other_form("a table that the component uses"));
        }
        let is_lift = matches!(function, Lift { .. });
        let mut encoded = wasm_encoder::CanonicalFunctionSection::new();
        let mut uses = Uses::new(&self.names);
        uses.parse_component_canonical(&mut encoded, function)?;
        let allocates = !uses.functions.is_empty();
        self.note(number, uses.functions);
        if is_lift {
            self.entered = true;
            return self.component_item(ComponentExternalKind::Func, None);
        }
        // What is made twice in the same way is imported once.
        let mut key = Vec::new();
        encoded.encode(&mut key);
        let made = self.made.entry(key).or_insert(self.canonicals);
        self.spaces.functions.push(Function::Canonical(*made));
        if allocates {
            self.allocating.insert(*made);
        }
        self.canonicals += 1;
        Ok(())
    }

    fn note(&mut self, section: usize, functions: Vec<u32>) {
        let canonicals = self.canonicals;
        let uses = functions.into_iter().map(|index| Use { index, section, canonicals });
        self.uses.extend(uses);
    }

    fn import(&mut self, ty: ComponentTypeRef) -> Result<(), NotMerged> {
        let kind = match ty {
            ComponentTypeRef::Module(_) => ComponentExternalKind::Module,
            ComponentTypeRef::Func(_) => ComponentExternalKind::Func,
            ComponentTypeRef::Type(_) => ComponentExternalKind::Type,
            ComponentTypeRef::Value(_)
            | ComponentTypeRef::Instance(_)
            | ComponentTypeRef::Component(_) => return Ok(()),
        };
        self.component_item(kind, None)
    }

    /// Counts what gets an index in the component. What it is an alias of, if it is one.
    fn component_item(
        &mut self,
        kind: ComponentExternalKind,
        alias_of: Option<(u32, &'a str)>,
    ) -> Result<(), NotMerged> {
        match kind {
            ComponentExternalKind::Module => return no_module(true),
            ComponentExternalKind::Func => self.names.functions.push(alias_of),
            ComponentExternalKind::Type => self.names.types.push(alias_of),
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), NotMerged> {
        match alias {
            ComponentAlias::CoreInstanceExport { instance_index, name, .. } => {
                let item = self.export(instance_index, name)?;
                self.spaces.push(item);
                Ok(())
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, .. } => {
                self.component_item(ComponentExternalKind::Type, None)
            }
            ComponentAlias::Outer { kind, .. } => {
                no_module(kind == ComponentOuterAliasKind::CoreModule)
            }
            ComponentAlias::InstanceExport { kind, instance_index, name } => {
                self.component_item(kind, Some((instance_index, name)))
            }
        }
    }

    fn component_instance(&mut self, instance: &ComponentInstance<'a>) -> Result<(), NotMerged> {
        match instance {
            ComponentInstance::Instantiate { args, .. } => {
                self.entered |= !self.parts.is_empty();
                no_module(args.iter().any(|arg| arg.kind == ComponentExternalKind::Module))
            }
            ComponentInstance::FromExports(exports) => {
                no_module(exports.iter().any(|it| it.kind == ComponentExternalKind::Module))
            }
        }
    }

    fn export(&self, instance: u32, name: &str) -> Result<Item, NotMerged> {
        let item = self.instances.get(instance as usize).and_then(|exports| exports.get(name));
        item.copied().ok_or_else(|| other_form("an import from elsewhere"))
    }

    /// What a constant expression of a part comes to, if it is a whole number.
    pub(super) fn constant(&self, spaces: &Spaces, expression: &ConstExpr<'_>) -> Option<Constant> {
        use Constant::{I32, I64};
        let mut stack = Vec::new();
        for operator in expression.get_operators_reader() {
            let constant = match operator.ok()? {
                Operator::I32Const { value } => I32(value),
                Operator::I64Const { value } => I64(value),
                Operator::GlobalGet { global_index } => {
                    *self.constants.get(spaces.globals.get(global_index as usize)?)?
                }
                Operator::End => return stack.pop().filter(|_| stack.is_empty()),
                operator => match (operator, stack.pop()?, stack.pop()?) {
                    (Operator::I32Add, I32(b), I32(a)) => I32(a.wrapping_add(b)),
                    (Operator::I32Sub, I32(b), I32(a)) => I32(a.wrapping_sub(b)),
                    (Operator::I32Mul, I32(b), I32(a)) => I32(a.wrapping_mul(b)),
                    (Operator::I64Add, I64(b), I64(a)) => I64(a.wrapping_add(b)),
                    (Operator::I64Sub, I64(b), I64(a)) => I64(a.wrapping_sub(b)),
                    (Operator::I64Mul, I64(b), I64(a)) => I64(a.wrapping_mul(b)),
                    _ => return None,
                },
            };
            stack.push(constant);
        }
        None
    }

    fn find_memory(&mut self) -> Result<(), NotMerged> {
        let mut memories = self.parts.iter().flat_map(|part| &part.module.memories);
        let memory = memories.next().copied();
        let is_plain = |memory: &MemoryType| {
            !memory.memory64 && !memory.shared && memory.page_size_log2.is_none()
        };
        if memories.next().is_some() || !memory.iter().all(is_plain) {
            return Err(other_form("more than one memory, or one of another kind"));
        }
        self.memory = memory;
        Ok(())
    }

    /// Finds the parts whose functions only call what another part puts into their
    /// table and nobody changes: `wit-component` makes such pairs, since what a
    /// component makes for its core module can need that module's memory. Here the
    /// memory is there first, so that none has to stand in for another.
    fn find_stand_ins(&mut self) {
        for part in 0..self.parts.len() {
            let Some(stands_for) = self.stand_in(part) else { continue };
            self.tables_left_out.insert(Own { part, index: 0 });
            if let Some(part) = self.parts.get_mut(part) {
                part.stands_for = Some(stands_for);
            }
        }
    }

    fn stand_in(&self, part: usize) -> Option<Vec<Function>> {
        let places = self.parts.get(part)?.module.trampolines()?;
        let table = Own { part, index: 0 };
        let has_table = |user: &Part<'_>| user.spaces.tables.contains(&table);
        let mut others = self.parts.iter().enumerate().filter(|(number, _)| *number != part);
        let (_, filler) = others.find(|(_, other)| has_table(other))?;
        if others.any(|(_, other)| has_table(other)) || uses_table(filler, table)? {
            return None;
        }
        let functions = self.filled(filler, table)?;
        let stands_in_itself = |function: &Function| match function {
            Function::Canonical(_) => false,
            Function::Own(own) => {
                self.parts.get(own.part).is_none_or(|part| part.module.trampolines().is_some())
            }
        };
        // Those would have to be followed on.
        if functions.iter().any(stands_in_itself) {
            return None;
        }
        places.into_iter().map(|place| functions.get(place as usize).copied()).collect()
    }

    /// What a part fills a whole table with.
    fn filled(&self, filler: &Part<'_>, table: Own) -> Option<Vec<Function>> {
        let fills = |element: &&Element<'_>| match &element.kind {
            ElementKind::Active { table_index, .. } => {
                filler.spaces.tables.get(table_index.unwrap_or(0) as usize) == Some(&table)
            }
            _ => false,
        };
        let mut elements = filler.module.elements.iter().filter(fills);
        let Element { kind, items, .. } = elements.next()?;
        let ElementKind::Active { offset_expr, .. } = kind else { return None };
        let begins = self.constant(&filler.spaces, offset_expr)?;
        let ElementItems::Functions(items) = items else { return None };
        if elements.next().is_some() || !matches!(begins, Constant::I32(0)) {
            return None;
        }
        let functions = items.clone().into_iter();
        functions.map(|index| filler.spaces.functions.get(index.ok()? as usize).copied()).collect()
    }

    fn check_tables(&self) -> Result<(), NotMerged> {
        let mut tables = 0;
        for part in self.parts.iter().filter(|part| !part.stands_in()) {
            tables += part.module.tables.len();
        }
        // One more is for functions that the component needs before they are there.
        if tables + 1 > TABLES_PER_MODULE_MAX as usize {
            return Err(other_form("more tables than one core module may have"));
        }
        Ok(())
    }

    /// A start function must not see what parts after it begin with, since that is
    /// all there before the first of them runs.
    fn check_starts(&self) -> Result<(), NotMerged> {
        let mut started = false;
        for part in self.parts.iter().filter(|part| !part.stands_in()) {
            let writes = part.module.data.iter().any(|data| is_active(&data.kind))
                || part.module.elements.iter().any(|element| self.fills(part, element));
            if started && writes {
                return Err(other_form("a start function before another part's data"));
            }
            started |= part.module.start.is_some();
        }
        Ok(())
    }

    fn fills(&self, part: &Part<'_>, element: &Element<'_>) -> bool {
        matches!(element.kind, ElementKind::Active { .. }) && self.is_kept(part, element)
    }

    /// Whether an element segment is for more than a stand-in.
    pub(super) fn is_kept(&self, part: &Part<'_>, element: &Element<'_>) -> bool {
        let ElementKind::Active { table_index, .. } = &element.kind else { return true };
        let table = part.spaces.tables.get(table_index.unwrap_or(0) as usize);
        table.is_none_or(|table| !self.is_left_out(*table))
    }

    /// Whether a table is only there for a stand-in.
    pub(super) fn is_left_out(&self, table: Own) -> bool {
        self.tables_left_out.contains(&table)
    }

    /// Whether a function that the component makes may call one of the parts'.
    pub(super) fn allocates(&self, canonical: u32) -> bool {
        self.allocating.contains(&canonical)
    }

    /// What is really called.
    pub(super) fn target(&self, function: Function) -> Function {
        let Function::Own(own) = function else { return function };
        let part = self.parts.get(own.part);
        let stands_for = part.and_then(|part| part.stands_for.as_ref());
        stands_for.and_then(|all| all.get(own.index as usize).copied()).unwrap_or(function)
    }

    /// What one of the component's core functions is.
    pub(super) fn function(&self, index: u32) -> Result<Function, NotMerged> {
        let function = self.spaces.functions.get(index as usize).copied();
        function.map(|it| self.target(it)).ok_or_else(|| other_form("a function from elsewhere"))
    }

    /// The parts' functions that the component itself names: whether it does so before
    /// all parts are there, and which.
    pub(super) fn named(&self) -> Result<Vec<(bool, Own)>, NotMerged> {
        let mut named = Vec::new();
        for it in &self.uses {
            match self.function(it.index)? {
                Function::Own(own) => named.push((it.section < self.last, own)),
                Function::Canonical(number) if number < it.canonicals => {}
                Function::Canonical(_) => return Err(other_form("a function before it is made")),
            }
        }
        Ok(named)
    }
}

fn no_module(is_module: bool) -> Result<(), NotMerged> {
    if is_module { Err(other_form("a core module that is passed on")) } else { Ok(()) }
}

pub(super) fn is_active(kind: &DataKind<'_>) -> bool {
    matches!(kind, DataKind::Active { .. })
}

fn each<'a, T: wasmparser::FromReader<'a>>(
    section: &wasmparser::SectionLimited<'a, T>,
    mut take: impl FnMut(T) -> Result<(), NotMerged>,
) -> Result<(), NotMerged> {
    for item in section.clone() {
        take(item?)?;
    }
    Ok(())
}

/// Whether a part's code names a table. None if it is broken.
fn uses_table(part: &Part<'_>, table: Own) -> Option<bool> {
    let named = Named::of(part).ok()?;
    Some(named.tables.iter().any(|index| part.spaces.tables.get(*index as usize) == Some(&table)))
}
