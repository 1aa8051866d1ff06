//! Constructors of powers and roots: exact if small, with the same node for equal numbers.

use super::arena::bits;
use super::arena::{Arena, Id, Node};
use super::budget::Res;
use super::function::Func;
use dashu_base::BitTest;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// Returns the exact root `value^(1/n)` if it is rational.
fn exact_root(value: &RBig, n: usize) -> Option<RBig> {
    let negative = *value.numerator() < IBig::ZERO;
    if negative && n.is_multiple_of(2) || n == 0 {
        return None;
    }
    let root = |x: &UBig| {
        let r = x.nth_root(n);
        (r.pow(n) == *x).then_some(r)
    };
    let (sign, magnitude) = value.numerator().clone().into_parts();
    let num = IBig::from_parts(sign, root(&magnitude)?);
    Some(RBig::from_parts(num, root(value.denominator())?))
}

impl Arena<'_> {
    pub fn sqrt(&mut self, id: Id) -> Res<Id> {
        let half = self.num(RBig::from_parts(1.into(), 2u8.into()))?;
        self.power(id, half)
    }

    /// Returns the real n-th root, also of a negative number if n is odd.
    pub fn root(&mut self, id: Id, n: Id) -> Res<Id> {
        if let Some(n) = self.small_int(n).filter(|n| *n > 0) {
            if n == 1 {
                return Ok(id);
            }
            if n % 2 == 0 {
                let e = self.num(RBig::from_parts(1.into(), UBig::from(n as u64)))?;
                return self.power(id, e);
            }
            if let Some(value) = self.exact(id).cloned() {
                let e = self.num(RBig::from_parts(1.into(), UBig::from(n as u64)))?;
                if *value.numerator() >= IBig::ZERO {
                    return self.power(id, e);
                }
                let positive = self.negate(id)?;
                let root = self.power(positive, e)?;
                return self.negate(root);
            }
        }
        if self.exact(n).is_none() {
            let minus = self.int(-1)?;
            let e = self.power(n, minus)?;
            return self.power(id, e);
        }
        self.add_node(Node::Fn(Func::Root, vec![id, n]))
    }

    /// Returns `base^exponent`, evaluated if it is exact and small.
    pub fn power(&mut self, base: Id, exponent: Id) -> Res<Id> {
        if matches!(self.node(base), Node::Undefined)
            || matches!(self.node(exponent), Node::Undefined)
        {
            return self.undefined();
        }
        if let Node::Matrix(..) = self.node(base) {
            return super::matrix::power(self, base, exponent);
        }
        let Some(e) = self.exact(exponent).cloned() else {
            if self.infinity_sign(exponent).is_some() && self.exact(base) == Some(&RBig::ONE) {
                return self.undefined();
            }
            return self.canonical_power(base, exponent);
        };
        if e == RBig::ONE {
            return Ok(base);
        }
        let decimal = matches!(self.node(base), Node::Decimal(_));
        if let Some(b) = self.exact(base).cloned() {
            if e.is_int() {
                if let Some(id) = self.fold_integer_power(&b, e.numerator(), decimal)? {
                    return Ok(id);
                }
            } else if let Some(id) = self.fold_root(&b, &e, decimal)? {
                return Ok(id);
            }
        }
        if e == RBig::ZERO {
            return if self.infinity_sign(base).is_some() {
                self.undefined()
            } else {
                self.int(1)
            };
        }
        // (b^a)^n = b^(a n) for any integer n.
        if e.is_int() {
            // The exponent is bounded, and so is the number of repetitions.
            if let Node::Pow(inner, a) = *self.node(base)
                && bits(&e) <= 64
            {
                let product = self.product(vec![a, exponent])?;
                return self.power(inner, product);
            }
            if let Node::Mul(factors) = self.node(base)
                && let Some(&literal) = factors.iter().find(|f| self.exact(**f).is_some())
            {
                let others: Vec<Id> = factors.iter().copied().filter(|f| *f != literal).collect();
                let first = self.power(literal, exponent)?;
                let rest = self.product(others)?;
                let second = self.power(rest, exponent)?;
                return self.product(vec![first, second]);
            }
            if matches!(self.node(base), Node::Imaginary)
                && let Some(n) = self.small_int(exponent)
            {
                let minus = self.int(-1)?;
                return match n.rem_euclid(4) {
                    0 => self.int(1),
                    1 => Ok(base),
                    2 => Ok(minus),
                    _ => self.product(vec![minus, base]),
                };
            }
        }
        self.canonical_power(base, exponent)
    }

    fn fold_integer_power(
        &mut self,
        base: &RBig,
        exponent: &IBig,
        decimal: bool,
    ) -> Res<Option<Id>> {
        if *base == RBig::ZERO {
            return Ok(Some(if *exponent < IBig::ZERO {
                self.undefined()?
            } else if *exponent == IBig::ZERO {
                self.int(1)?
            } else {
                self.literal(RBig::ZERO, decimal)?
            }));
        }
        if *base == RBig::ONE {
            return self.int(1).map(Some);
        }
        if *base == -RBig::ONE {
            let odd = exponent.bit(0);
            return self.int(if odd { -1 } else { 1 }).map(Some);
        }
        let Ok(e) = i64::try_from(exponent) else {
            return Ok(None);
        };
        let size = (bits(base) as u64).saturating_mul(e.unsigned_abs());
        if size > self.budget.max_bits as u64 / 8 {
            return Ok(None);
        }
        self.budget.spend_bits(size as usize)?;
        self.literal(base.pow(e as isize), decimal).map(Some)
    }

    /// Returns `base^(p/q)` for a literal: a rational if the root is rational, otherwise with the
    /// largest factor outside of the root, so that `sqrt(12)` and `2 sqrt(3)` are the same node.
    fn fold_root(&mut self, base: &RBig, e: &RBig, decimal: bool) -> Res<Option<Id>> {
        let (Ok(p), Ok(q)) = (i64::try_from(e.numerator()), u32::try_from(e.denominator())) else {
            return Ok(None);
        };
        if *base == RBig::ZERO {
            return Ok(Some(if p < 0 {
                self.undefined()?
            } else {
                self.int(0)?
            }));
        }
        if *base < RBig::ZERO || q > 64 || p.unsigned_abs() > 4096 || bits(base) > 4096 {
            return Ok(None);
        }
        self.budget.spend_bits(bits(base) * 8)?;
        if let Some(root) = exact_root(base, q as usize) {
            return self.fold_integer_power(&root, e.numerator(), decimal);
        }
        // Writes it as coefficient * radicand^(r/q) with 0 < r < q and an integer radicand without
        // small q-th powers.
        let whole = p.div_euclid(i64::from(q));
        let r = p.rem_euclid(i64::from(q));
        let denominator = base.denominator().clone();
        let (_, numerator) = base.numerator().clone().into_parts();
        // (n/d)^(r/q) = (n d^(q-1))^(r/q) / d^r
        let mut radicand = numerator * denominator.pow(q as usize - 1);
        let mut taken = RBig::from_parts(1.into(), denominator.clone());
        let mut factor = 2u32;
        while factor < 200 {
            let power = UBig::from(factor).pow(q as usize);
            if power > radicand {
                break;
            }
            self.budget.spend(1 + (radicand.bit_len() / 64) as u64)?;
            if (&radicand % &power) == UBig::ZERO {
                radicand /= &power;
                taken *= RBig::from(factor);
            } else {
                factor += 1;
            }
        }
        let coefficient = taken.pow(r as isize) * base.pow(whole as isize);
        let radicand = RBig::from(IBig::from(radicand));
        let irrational = if radicand == RBig::ONE {
            self.int(1)?
        } else {
            let b = self.num(radicand)?;
            let e = self.num(RBig::from_parts(r.into(), q.into()))?;
            self.add_node(Node::Pow(b, e))?
        };
        if coefficient == RBig::ONE && !decimal {
            return Ok(Some(irrational));
        }
        let c = self.literal(coefficient, decimal)?;
        let mut factors = vec![c, irrational];
        factors.retain(|id| self.exact(*id) != Some(&RBig::ONE));
        factors.sort_unstable();
        Ok(Some(match factors.len() {
            0 => self.int(1)?,
            1 => factors[0],
            _ => self.add_node(Node::Mul(factors))?,
        }))
    }

    /// Returns `base^a base^c` for `base^(a + c)` with a small integer c, so that 2^(n+1) and 2 2^n
    /// are the same node.
    fn split_exponent(&mut self, base: Id, exponent: Id) -> Res<Option<Id>> {
        let terms = match self.node(exponent).clone() {
            Node::Add(terms) => terms,
            // c (a + b), as in 1/2^(n+1)
            Node::Mul(factors) if factors.len() == 2 => {
                let pair = match (
                    self.exact(factors[0]).is_some(),
                    self.node(factors[0]),
                    self.node(factors[1]),
                ) {
                    (true, _, Node::Add(terms)) => Some((factors[0], terms.clone())),
                    (false, Node::Add(terms), _) if self.exact(factors[1]).is_some() => {
                        Some((factors[1], terms.clone()))
                    }
                    _ => None,
                };
                let Some((factor, terms)) = pair else {
                    return Ok(None);
                };
                let mut scaled = Vec::with_capacity(terms.len());
                for term in terms {
                    scaled.push(self.product(vec![factor, term])?);
                }
                scaled
            }
            _ => return Ok(None),
        };
        let Some(&literal) = terms
            .iter()
            .find(|t| self.small_int(**t).is_some_and(|c| c.abs() <= 64))
        else {
            return Ok(None);
        };
        let rest: Vec<Id> = terms.iter().copied().filter(|t| *t != literal).collect();
        let rest = self.sum(rest)?;
        let first = self.power(base, rest)?;
        let second = self.power(base, literal)?;
        self.product(vec![first, second]).map(Some)
    }

    /// Returns the power as a node. If a literal base is itself a power, its exponent is moved: 4^n
    /// = 2^(2n).
    fn canonical_power(&mut self, base: Id, exponent: Id) -> Res<Id> {
        if let Some(id) = self.split_exponent(base, exponent)? {
            return Ok(id);
        }
        if let Node::Num(b) = self.node(base)
            && b.is_int()
            && let Ok(value) = u64::try_from(b.numerator())
            && value > 3
        {
            for k in (2..=63u32).rev() {
                let root = UBig::from(value).nth_root(k as usize);
                if root > UBig::ONE && root.pow(k as usize) == UBig::from(value) {
                    let b = self.num(RBig::from(IBig::from(root)))?;
                    let k = self.int(i64::from(k))?;
                    let e = self.product(vec![k, exponent])?;
                    return self.add_node(Node::Pow(b, e));
                }
            }
        }
        self.add_node(Node::Pow(base, exponent))
    }
}
