//! What code and components name, found by reading them as if to write them anew.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};

use super::NotMerged;
use super::scope::Part;

/// The tables and data segments that a part's code names.
#[derive(Default)]
pub(super) struct Named {
    pub(super) tables: BTreeSet<u32>,
    pub(super) data: BTreeSet<u32>,
}

impl Named {
    pub(super) fn of(part: &Part<'_>) -> Result<Self, NotMerged> {
        let mut named = Self::default();
        for body in &part.module.bodies {
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                named.parse_instruction(&mut operators)?;
            }
        }
        Ok(named)
    }
}

impl Reencode for Named {
    type Error = Infallible;

    fn table_index(&mut self, index: u32) -> Result<u32, reencode::Error<Infallible>> {
        self.tables.insert(index);
        Ok(index)
    }

    fn data_index(&mut self, index: u32) -> Result<u32, reencode::Error<Infallible>> {
        self.data.insert(index);
        Ok(index)
    }
}

/// An index space of the component: of each index the first one that is the same,
/// since an export of an instance can be named often.
#[derive(Default)]
pub(super) struct Same<'a> {
    firsts: Vec<u32>,
    aliases: HashMap<(u32, &'a str), u32>,
}

impl<'a> Same<'a> {
    pub(super) fn push(&mut self, alias_of: Option<(u32, &'a str)>) {
        let index = self.firsts.len() as u32;
        let first = alias_of.map(|export| *self.aliases.entry(export).or_insert(index));
        self.firsts.push(first.unwrap_or(index));
    }

    fn first(&self, index: u32) -> u32 {
        self.firsts.get(index as usize).copied().unwrap_or(index)
    }
}

/// The component's own functions and types.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) functions: Same<'a>,
    pub(super) types: Same<'a>,
}

/// The core functions that are named in what it reencodes. There, the component's own
/// items are named by the first of their names.
pub(super) struct Uses<'n, 'a> {
    names: &'n Names<'a>,
    pub(super) functions: Vec<u32>,
}

impl<'n, 'a> Uses<'n, 'a> {
    pub(super) fn new(names: &'n Names<'a>) -> Self {
        Self { names, functions: Vec::new() }
    }
}

impl Reencode for Uses<'_, '_> {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<Infallible>> {
        self.functions.push(index);
        Ok(index)
    }
}

impl ReencodeComponent for Uses<'_, '_> {
    fn component_type_index(&mut self, index: u32) -> u32 {
        self.names.types.first(index)
    }

    fn component_func_index(&mut self, index: u32) -> u32 {
        self.names.functions.first(index)
    }
}
