//! Constructors that simplify: exact arithmetic on literals, flat sums and products, powers of
//! powers.
//!
//! They make no assumption about symbols, except that removable singularities are ignored.

use super::arena::{Arena, Id, Node, bits};
use super::budget::Res;
use super::function::Func;
use dashu_ratio::RBig;

impl Arena<'_> {
    pub fn num(&mut self, value: RBig) -> Res<Id> {
        self.add_node(Node::Num(value))
    }

    pub fn int(&mut self, value: i64) -> Res<Id> {
        self.num(RBig::from(value))
    }

    pub fn symbol(&mut self, name: &str) -> Res<Id> {
        let name = self.intern(name);
        self.add_node(Node::Sym(name))
    }

    pub fn undefined(&mut self) -> Res<Id> {
        self.add_node(Node::Undefined)
    }

    /// Returns the exact value of a literal.
    pub fn exact(&self, id: Id) -> Option<&RBig> {
        match self.node(id) {
            Node::Num(v) | Node::Decimal(v) => Some(v),
            _ => None,
        }
    }

    /// Returns the value of an integer literal that fits in 64 bits.
    pub fn small_int(&self, id: Id) -> Option<i64> {
        let value = self.exact(id)?;
        if !value.is_int() {
            return None;
        }
        i64::try_from(value.numerator()).ok()
    }

    pub(crate) fn literal(&mut self, value: RBig, decimal: bool) -> Res<Id> {
        self.add_node(if decimal {
            Node::Decimal(value)
        } else {
            Node::Num(value)
        })
    }

    /// Returns the sum of `terms`: flat, with the literals added, in the order of IDs.
    pub fn sum(&mut self, terms: Vec<Id>) -> Res<Id> {
        let mut rest = Vec::with_capacity(terms.len());
        let mut total = RBig::ZERO;
        let mut decimal = false;
        let mut matrices = false;
        let mut stack: Vec<Id> = terms;
        stack.reverse();
        while let Some(id) = stack.pop() {
            match self.node(id) {
                Node::Add(inner) => {
                    self.budget.spend(inner.len() as u64)?;
                    stack.extend(inner.iter().rev());
                }
                Node::Num(v) | Node::Decimal(v) => {
                    decimal |= matches!(self.node(id), Node::Decimal(_));
                    self.budget.spend_bits(bits(v) + bits(&total))?;
                    total = &total + v;
                }
                Node::Undefined => return self.undefined(),
                Node::Matrix(..) => {
                    matrices = true;
                    rest.push(id);
                }
                _ => rest.push(id),
            }
        }
        if matrices && rest.len() == 1 && total == RBig::ZERO {
            return Ok(rest[0]);
        }
        if matrices {
            if total != RBig::ZERO {
                let constant = self.literal(total, decimal)?;
                rest.push(constant);
            }
            return super::matrix::add(self, rest);
        }
        if rest.is_empty() {
            return self.literal(total, decimal);
        }
        if rest.iter().any(|&id| self.infinity_sign(id) == Some(1))
            && rest.iter().any(|&id| self.infinity_sign(id) == Some(-1))
        {
            return self.undefined();
        }
        if total != RBig::ZERO {
            let constant = self.literal(total, decimal)?;
            rest.push(constant);
        }
        if rest.len() == 1 {
            return Ok(rest[0]);
        }
        rest.sort_unstable();
        self.add_node(Node::Add(rest))
    }

    /// Returns the product of `factors`: flat, with the literals multiplied and powers of the same
    /// base joined, in the order of IDs.
    pub fn product(&mut self, factors: Vec<Id>) -> Res<Id> {
        let mut rest = Vec::with_capacity(factors.len());
        let mut total = RBig::ONE;
        let mut decimal = false;
        let mut matrices = false;
        let mut stack: Vec<Id> = factors;
        stack.reverse();
        while let Some(id) = stack.pop() {
            match self.node(id) {
                Node::Mul(inner) => {
                    self.budget.spend(inner.len() as u64)?;
                    stack.extend(inner.iter().rev());
                }
                Node::Num(v) | Node::Decimal(v) => {
                    decimal |= matches!(self.node(id), Node::Decimal(_));
                    self.budget.spend_bits(bits(v) + bits(&total))?;
                    total = &total * v;
                }
                Node::Undefined => return self.undefined(),
                Node::Matrix(..) => {
                    matrices = true;
                    rest.push(id);
                }
                _ => rest.push(id),
            }
        }
        if matrices && rest.len() == 1 && total == RBig::ONE {
            return Ok(rest[0]);
        }
        if matrices {
            let constant = self.literal(total, decimal)?;
            rest.push(constant);
            return super::matrix::multiply(self, rest);
        }
        if rest.is_empty() {
            return self.literal(total, decimal);
        }
        let infinite = rest
            .iter()
            .any(|&id| matches!(self.node(id), Node::Infinity));
        if infinite && (total == RBig::ZERO || rest.iter().any(|&id| self.vanishes(id))) {
            return self.undefined();
        }
        if rest.len() > 1 {
            rest = self.join_powers(rest)?;
            // Joining may produce a literal, as in 2^(1/2) * 2^(1/2).
            if rest.iter().any(|&id| self.exact(id).is_some()) {
                if total != RBig::ONE || decimal {
                    let constant = self.literal(total, decimal)?;
                    rest.push(constant);
                }
                return self.product(rest);
            }
        }
        if total != RBig::ONE {
            let constant = self.literal(total, decimal)?;
            rest.push(constant);
        }
        match rest.len() {
            0 => self.int(1),
            1 => Ok(rest[0]),
            _ => {
                rest.sort_unstable();
                self.add_node(Node::Mul(rest))
            }
        }
    }

    /// Returns whether a factor is a negative power of infinity.
    fn vanishes(&self, id: Id) -> bool {
        match *self.node(id) {
            Node::Pow(base, exponent) => {
                matches!(self.node(base), Node::Infinity)
                    && self.exact(exponent).is_some_and(|e| *e < RBig::ZERO)
            }
            _ => false,
        }
    }

    /// Returns 1 for infinity and its positive multiples, -1 for the negative ones.
    pub fn infinity_sign(&self, id: Id) -> Option<i8> {
        match self.node(id) {
            Node::Infinity => Some(1),
            Node::Mul(factors)
                if factors.len() == 2
                    && factors
                        .iter()
                        .any(|f| matches!(self.node(*f), Node::Infinity)) =>
            {
                let literal = factors.iter().find_map(|f| self.exact(*f))?;
                Some(if *literal < RBig::ZERO { -1 } else { 1 })
            }
            _ => None,
        }
    }

    /// Joins powers of the same base with literal exponents.
    fn join_powers(&mut self, factors: Vec<Id>) -> Res<Vec<Id>> {
        let mut groups: Vec<(Id, RBig, Option<Id>)> = Vec::with_capacity(factors.len());
        let mut index = std::collections::HashMap::new();
        for id in factors {
            let (base, exponent) = match *self.node(id) {
                Node::Pow(base, exponent) => match self.node(exponent) {
                    Node::Num(e) => (base, e.clone()),
                    _ => (id, RBig::ONE),
                },
                _ => (id, RBig::ONE),
            };
            match index.get(&base) {
                Some(&at) => {
                    let group: &mut (Id, RBig, Option<Id>) = &mut groups[at];
                    // x^(1/2) x^(1/2) is x where it is real: where both exist, the joined power has
                    // the same value.
                    self.budget.spend_bits(bits(&group.1) + bits(&exponent))?;
                    group.1 = &group.1 + &exponent;
                    group.2 = None;
                }
                None => {
                    index.insert(base, groups.len());
                    groups.push((base, exponent, Some(id)));
                }
            }
        }
        let mut out = Vec::with_capacity(groups.len());
        for (base, exponent, same) in groups {
            match same {
                Some(id) => out.push(id),
                None => {
                    let e = self.num(exponent)?;
                    let power = self.power(base, e)?;
                    if self.exact(power) != Some(&RBig::ONE) {
                        out.push(power);
                    }
                }
            }
        }
        Ok(out)
    }

    pub fn negate(&mut self, id: Id) -> Res<Id> {
        let minus = self.int(-1)?;
        self.product(vec![minus, id])
    }

    pub fn subtract(&mut self, a: Id, b: Id) -> Res<Id> {
        let b = self.negate(b)?;
        self.sum(vec![a, b])
    }

    pub fn divide(&mut self, a: Id, b: Id) -> Res<Id> {
        let minus = self.int(-1)?;
        let inverse = self.power(b, minus)?;
        self.product(vec![a, inverse])
    }

    /// Simplifies a node, for passes that change the children of a node.
    pub fn remake(&mut self, node: Node) -> Res<Id> {
        match node {
            Node::Add(terms) => self.sum(terms),
            Node::Mul(factors) => self.product(factors),
            Node::Pow(base, exponent) => self.power(base, exponent),
            Node::Fn(Func::Root, args) => self.root(args[0], args[1]),
            Node::Fn(f, args) => self.function(f, args),
            other => self.add_node(other),
        }
    }

    /// Returns the value of a function of literals if it is exact and small, otherwise the function
    /// as a node.
    pub fn function(&mut self, f: Func, args: Vec<Id>) -> Res<Id> {
        if args
            .iter()
            .any(|&a| matches!(self.node(a), Node::Undefined))
        {
            return self.undefined();
        }
        if let Some(id) = super::fold::function(self, f, &args)? {
            return Ok(id);
        }
        self.add_node(Node::Fn(f, args))
    }
}
