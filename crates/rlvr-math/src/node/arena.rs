//! Expressions: hash-consed nodes in an arena.
//!
//! The children of a node always have smaller IDs than the node, so that a pass over an expression
//! is a loop over IDs instead of a recursion, and deep nesting cannot exhaust the stack. Equal
//! nodes share an ID, so that comparing two identical expressions means comparing two integers.

use super::budget::{Budget, Res, Stop};
use super::function::{BigOp, Func, RelOp};
use super::operations::Operations;
use dashu_base::BitTest;
use dashu_ratio::RBig;
use std::collections::HashMap;

/// The index of a node in its arena.
pub(crate) type Id = u32;

/// The index of a string in the arena's table of names.
pub(crate) type Name = u32;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// An exact number.
    Num(RBig),
    /// A number written with a decimal point, or a sum or product with one.
    Decimal(RBig),
    Sym(Name),
    Pi,
    Euler,
    Imaginary,
    Infinity,
    /// 1/0 and the like, which equals nothing.
    Undefined,
    Add(Vec<Id>),
    Mul(Vec<Id>),
    Pow(Id, Id),
    Fn(Func, Vec<Id>),
    /// An unknown function.
    App(Name, Vec<Id>),
    Big(BigOp, Vec<Id>),
    /// A bound variable, numbered by nesting.
    Bound(u32),

    Percent(Id),
    Degree(Id),
    /// A value with a unit or another word after it.
    Quantity(Id, Name),
    /// Digits in a base: `1010_2`.
    Based(Name, Id),
    Ratio(Vec<Id>),
    PlusMinus(Id),
    MinusPlus(Id),

    Tuple(Vec<Id>),
    /// A comma-separated list without brackets.
    List(Vec<Id>),
    Set(Vec<Id>),
    /// `Interval(low, high, low is closed, high is closed)`
    Interval(Id, Id, bool, bool),
    Union(Vec<Id>),
    Intersection(Vec<Id>),
    Without(Id, Id),
    /// R, Z, N, Q, C.
    Numbers(char),
    /// `{x : condition}`
    Builder(Id, Id),
    /// `Matrix(columns, cells by row)`
    Matrix(u32, Vec<Id>),
    Rel(Vec<RelOp>, Vec<Id>),
    And(Vec<Id>),
    Or(Vec<Id>),
    Text(Name),
}

impl Node {
    /// Returns the children that are stored as a slice: none of `Pow`, `Interval`, `Without` and
    /// `Builder`, for which see [`each_child`](Self::each_child).
    pub fn children(&self) -> &[Id] {
        use Node::*;
        match self {
            Add(v)
            | Mul(v)
            | Fn(_, v)
            | App(_, v)
            | Big(_, v)
            | Ratio(v)
            | Tuple(v)
            | List(v)
            | Set(v)
            | Union(v)
            | Intersection(v)
            | Matrix(_, v)
            | Rel(_, v)
            | And(v)
            | Or(v) => v,
            Percent(a) | Degree(a) | Quantity(a, _) | Based(_, a) | PlusMinus(a) | MinusPlus(a) => {
                std::slice::from_ref(a)
            }
            _ => &[],
        }
    }

    /// Calls `visit` with each child.
    pub fn each_child(&self, mut visit: impl FnMut(Id)) {
        use Node::*;
        match self {
            Pow(a, b) | Interval(a, b, ..) | Without(a, b) | Builder(a, b) => {
                visit(*a);
                visit(*b);
            }
            other => other.children().iter().copied().for_each(visit),
        }
    }

    /// Returns this node with each child replaced by the result of `map`.
    pub fn with_children(&self, mut map: impl FnMut(Id) -> Id) -> Node {
        use Node::*;
        let mut all = |ids: &[Id]| ids.iter().map(|&id| map(id)).collect::<Vec<_>>();
        match self {
            Add(v) => Add(all(v)),
            Mul(v) => Mul(all(v)),
            Fn(f, v) => Fn(*f, all(v)),
            App(f, v) => App(*f, all(v)),
            Big(op, v) => Big(*op, all(v)),
            Ratio(v) => Ratio(all(v)),
            Tuple(v) => Tuple(all(v)),
            List(v) => List(all(v)),
            Set(v) => Set(all(v)),
            Union(v) => Union(all(v)),
            Intersection(v) => Intersection(all(v)),
            Matrix(c, v) => Matrix(*c, all(v)),
            Rel(ops, v) => Rel(ops.clone(), all(v)),
            And(v) => And(all(v)),
            Or(v) => Or(all(v)),
            Pow(a, b) => Pow(map(*a), map(*b)),
            Percent(a) => Percent(map(*a)),
            Degree(a) => Degree(map(*a)),
            Quantity(a, u) => Quantity(map(*a), *u),
            Based(d, a) => Based(*d, map(*a)),
            PlusMinus(a) => PlusMinus(map(*a)),
            MinusPlus(a) => MinusPlus(map(*a)),
            Interval(a, b, l, h) => Interval(map(*a), map(*b), *l, *h),
            Without(a, b) => Without(map(*a), map(*b)),
            Builder(a, b) => Builder(map(*a), map(*b)),
            leaf => leaf.clone(),
        }
    }
}

/// Returns the bits of the numerator or denominator, whichever is larger.
pub(crate) fn bits(value: &RBig) -> usize {
    value
        .numerator()
        .bit_len()
        .max(value.denominator().bit_len())
}

/// The nodes of a comparison, of both sides.
pub(crate) struct Arena<'b> {
    nodes: Vec<Node>,
    index: HashMap<Node, Id>,
    names: Vec<String>,
    name_index: HashMap<String, Name>,
    pub budget: &'b Budget,
    /// The unevaluated operations of the text that is being parsed.
    pub operations: Operations,
}

impl<'b> Arena<'b> {
    pub fn new(budget: &'b Budget) -> Self {
        Self {
            nodes: Vec::new(),
            index: HashMap::new(),
            names: Vec::new(),
            name_index: HashMap::new(),
            budget,
            operations: Operations::default(),
        }
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn name(&self, name: Name) -> &str {
        &self.names[name as usize]
    }

    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(&name) = self.name_index.get(text) {
            return name;
        }
        let name = self.names.len() as Name;
        self.names.push(text.to_owned());
        self.name_index.insert(text.to_owned(), name);
        name
    }

    /// Returns the ID of `node`, which is stored if it is new. For arithmetic use the constructors
    /// in `build`, which simplify.
    pub fn add_node(&mut self, node: Node) -> Res<Id> {
        if let Some(&id) = self.index.get(&node) {
            return Ok(id);
        }
        if self.nodes.len() >= self.budget.max_nodes {
            return Err(Stop::Limit("nodes"));
        }
        self.budget.spend(1 + node.children().len() as u64)?;
        let id = self.nodes.len() as Id;
        self.index.insert(node.clone(), id);
        self.nodes.push(node);
        Ok(id)
    }

    /// Returns the IDs of all nodes below `roots` and of `roots`, children before parents.
    pub fn reachable(&self, roots: &[Id]) -> Vec<Id> {
        let Some(&top) = roots.iter().max() else {
            return Vec::new();
        };
        let mut seen = vec![false; top as usize + 1];
        for &root in roots {
            seen[root as usize] = true;
        }
        for id in (0..=top).rev() {
            if seen[id as usize] {
                self.nodes[id as usize].each_child(|child| seen[child as usize] = true);
            }
        }
        (0..=top).filter(|&id| seen[id as usize]).collect()
    }

    /// Returns whether `root` or any node below it satisfies `test`.
    pub fn any(&self, root: Id, mut test: impl FnMut(&Node) -> bool) -> bool {
        if self.nodes[root as usize].children().is_empty()
            && !matches!(self.nodes[root as usize], Node::Pow(..))
        {
            return test(&self.nodes[root as usize]);
        }
        self.reachable(&[root])
            .into_iter()
            .any(|id| test(self.node(id)))
    }

    /// Returns the free symbols below `roots` in the order of their IDs.
    pub fn symbols(&self, roots: &[Id]) -> Vec<Id> {
        let mut all = self.reachable(roots);
        all.retain(|&id| matches!(self.node(id), Node::Sym(_)));
        all
    }
}
