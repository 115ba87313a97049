//! A function that the host has in components with a large memory: it makes pages
//! of that memory private, so that they stay mapped ([`super::super::resident`]).

use wasm_encoder::{
    CanonicalFunctionSection, CanonicalOption, Component, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentTypeSection, ComponentValType,
    ExportKind, Function, MemArg, PrimitiveValType,
};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::{FIRST_INSTANCE, NotMerged, alias, other_form};

/// What the first module exports it as.
pub(super) const TOUCH: &str = "touch";
/// Memories that begin with less than this, in pages of 64 KiB, are cleared by
/// their written pages, of which there are few: 4 MiB.
pub(super) const MEMORY_PAGES_MIN: u64 = 64;
/// No page of the machine is smaller, in bytes.
const STEP: i32 = 4096;

const WHOLE: MemArg = MemArg { offset: 0, align: 0, memory_index: 0 };
const SIZE: MemArg = MemArg { offset: 4, align: 2, memory_index: 0 };

/// Writes what is there to each page from one address to another, and returns the
/// whole memory as a list: what the host learns of it is where it is.
///
/// The list's address and length are put at the memory's beginning. It is called
/// when the guest has ended, and who comes next finds a new memory.
pub(super) fn body() -> Function {
    let (begin, end) = (0, 1);
    let mut code = Function::new([]);
    let mut body = code.instructions();
    body.block(wasm_encoder::BlockType::Empty).loop_(wasm_encoder::BlockType::Empty);
    body.local_get(begin).local_get(end).i32_ge_u().br_if(1);
    body.local_get(begin).local_get(begin).i32_load8_u(WHOLE).i32_store8(WHOLE);
    body.local_get(begin).i32_const(STEP).i32_add().local_set(begin).br(0).end().end();
    body.i32_const(0).i32_const(0).i32_store(MemArg { align: 2, ..WHOLE });
    body.i32_const(0).memory_size(0).i32_const(16).i32_shl().i32_store(SIZE);
    body.i32_const(0).end();
    code
}

/// Exports it from a component that is complete otherwise.
///
/// # Errors
/// When the component is not valid, or exports something of that name.
pub(super) fn export(component: &mut Component, name: &str) -> Result<(), NotMerged> {
    let count = Count::of(component.as_slice())?;
    let mut aliases = ComponentAliasSection::new();
    alias(&mut aliases, FIRST_INSTANCE, ExportKind::Func, TOUCH);
    let mut types = ComponentTypeSection::new();
    types.defined_type().list(ComponentValType::Primitive(PrimitiveValType::U8));
    let address = ComponentValType::Primitive(PrimitiveValType::U32);
    types
        .function()
        .params([("begin", address), ("end", address)])
        .result(Some(ComponentValType::Type(count.types)));
    let mut lifted = CanonicalFunctionSection::new();
    lifted.lift(count.core_functions, count.types + 1, [CanonicalOption::Memory(0)]);
    let mut exports = ComponentExportSection::new();
    exports.export(name, ComponentExportKind::Func, count.functions, None);
    component.section(&aliases).section(&types).section(&lifted).section(&exports);
    Ok(())
}

/// How many a component has of what is numbered.
struct Count {
    types: u32,
    functions: u32,
    core_functions: u32,
}

impl Count {
    fn of(component: &[u8]) -> Result<Self, NotMerged> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload?;
            match &payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) if depth == 0 => break,
                Payload::End(_) => depth -= 1,
                _ => {}
            }
            validator.payload(&payload)?;
        }
        let types = validator.types(0).ok_or_else(|| other_form("no end"))?;
        Ok(Self {
            types: types.component_type_count(),
            functions: types.component_function_count(),
            core_functions: types.function_count(),
        })
    }
}
