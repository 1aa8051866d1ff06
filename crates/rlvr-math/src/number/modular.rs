//! Equality of rational functions by evaluation modulo large primes (Schwartz, Zippel).
//!
//! A nonzero polynomial of degree d vanishes at a uniform point of F_p with probability at most
//! d/p. With p near 2^61, d <= 10^6 and two primes, the error probability of "equal" is below
//! 2^-82. "Different" is certain if only `+ - * /` and integer powers occur. Everything else
//! (roots, sines, pi, unknown functions) is an *atom*: a random number that depends on the function
//! and on the values of its arguments, so that equal arguments give equal atoms. With atoms a
//! difference is not a proof, because they may hide an identity such as `sin(x)^2 + cos(x)^2 = 1`.

use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::node::function::Func;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// The degree up to which the error bound holds.
const MAX_DEGREE: f64 = 1e6;

/// The relation of two expressions modulo a prime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Formal {
    /// They have the same value, as functions of the atoms.
    Same,
    /// They have different values and no atoms, so that they are different rational functions.
    Different,
    /// They have different values, but their atoms may be related.
    Unclear,
}

/// The values of a set of nodes in F_p.
pub(crate) struct Residues {
    pub values: std::collections::HashMap<Id, Option<u64>>,
    degree: f64,
    atoms: bool,
}

/// Compares `a` and `b` modulo each of `primes`.
pub(crate) fn compare(arena: &Arena, a: Id, b: Id, primes: [u64; 2], seed: u64) -> Res<Formal> {
    let order = arena.reachable(&[a, b]);
    let mut same = 0;
    for (round, p) in primes.into_iter().enumerate() {
        // If a denominator is zero, try another point.
        for attempt in 0..8u64 {
            let residues = residues(arena, &order, p, mix(seed, round as u64 * 64 + attempt))?;
            let value = |id: Id| residues.values.get(&id).copied().flatten();
            let (Some(x), Some(y)) = (value(a), value(b)) else {
                continue;
            };
            if x != y {
                return Ok(if residues.atoms {
                    Formal::Unclear
                } else {
                    Formal::Different
                });
            }
            if residues.degree > MAX_DEGREE {
                return Ok(Formal::Unclear);
            }
            same += 1;
            break;
        }
    }
    Ok(if same == 2 {
        Formal::Same
    } else {
        Formal::Unclear
    })
}

/// Evaluates the nodes of `order` in F_p at a point drawn from `seed`. The value is `None` if a
/// denominator is zero, or the node is not a number.
pub(crate) fn residues(arena: &Arena, order: &[Id], p: u64, seed: u64) -> Res<Residues> {
    let mut out = Residues {
        values: std::collections::HashMap::with_capacity(order.len()),
        degree: 1.0,
        atoms: false,
    };
    let mut degrees: std::collections::HashMap<Id, f64> =
        std::collections::HashMap::with_capacity(order.len());
    for &id in order {
        let node = arena.node(id);
        arena.budget.spend(1 + node.children().len() as u64)?;
        let of = |child: &Id| out.values.get(child).copied().flatten();
        let degree_of = |child: &Id| degrees.get(child).copied().unwrap_or(1.0);
        let mut degree = 1.0;
        let mut atom = false;
        let value = match node {
            Node::Num(v) | Node::Decimal(v) => {
                degree = 0.0;
                arena
                    .budget
                    .spend(v.numerator().as_sign_words().1.len() as u64)?;
                rational(v, p)
            }
            Node::Sym(_) | Node::Bound(_) => Some(random(seed, node_tag(arena, id), p)),
            Node::Add(terms) => {
                degree = terms.iter().map(degree_of).sum();
                terms.iter().try_fold(0, |sum, t| Some(add(sum, of(t)?, p)))
            }
            Node::Mul(factors) => {
                degree = factors.iter().map(degree_of).sum();
                factors
                    .iter()
                    .try_fold(1, |product, f| Some(mul(product, of(f)?, p)))
            }
            Node::Pow(base, exponent) => match arena.node(*exponent) {
                Node::Num(e) if e.is_int() => {
                    let n = e.numerator();
                    degree = degree_of(base)
                        * i64::try_from(n).map_or(f64::INFINITY, |n| n.unsigned_abs() as f64);
                    if degree_of(base) == 0.0 {
                        degree = 0.0;
                    }
                    of(base).and_then(|b| power(b, n, p))
                }
                _ => {
                    atom = true;
                    opaque(seed, 1, &[*base, *exponent], of, p)
                }
            },
            Node::Fn(f, args) => {
                atom = true;
                let symmetric = matches!(f, Func::Gcd | Func::Lcm | Func::Min | Func::Max);
                let mut ids = args.clone();
                if symmetric {
                    ids.sort_unstable_by_key(|id| of(id));
                }
                opaque(seed, 100 + *f as u64, &ids, of, p)
            }
            Node::App(name, args) => {
                atom = true;
                opaque(seed, mix(7, hash_text(arena.name(*name))), args, of, p)
            }
            Node::Big(op, args) => {
                atom = true;
                opaque(seed, 200 + *op as u64, args, of, p)
            }
            Node::Percent(a) => of(a).and_then(|a| Some(mul(a, inverse(100, p)?, p))),
            Node::Quantity(a, _) => of(a),
            Node::Ratio(v) if v.len() == 2 => {
                degree = v.iter().map(degree_of).sum();
                of(&v[0]).and_then(|a| Some(mul(a, inverse(of(&v[1])?, p)?, p)))
            }
            Node::Degree(a) => {
                atom = true;
                opaque(seed, 2, &[*a], of, p)
            }
            Node::Pi | Node::Euler | Node::Imaginary => {
                atom = true;
                let tag = match node {
                    Node::Pi => 11,
                    Node::Euler => 12,
                    _ => 13,
                };
                Some(random(seed, tag, p))
            }
            _ => None,
        };
        out.atoms |= atom;
        out.degree = out.degree.max(degree);
        degrees.insert(id, degree);
        out.values.insert(id, value);
    }
    Ok(out)
}

/// Returns a hash that identifies a symbol, by its name, in every arena.
fn node_tag(arena: &Arena, id: Id) -> u64 {
    match arena.node(id) {
        Node::Sym(name) => mix(3, hash_text(arena.name(*name))),
        Node::Bound(n) => mix(5, u64::from(*n)),
        _ => 0,
    }
}

fn opaque(
    seed: u64,
    tag: u64,
    args: &[Id],
    of: impl Fn(&Id) -> Option<u64>,
    p: u64,
) -> Option<u64> {
    let mut hash = mix(seed, tag);
    for arg in args {
        hash = mix(hash, of(arg)?);
    }
    Some(random(hash, args.len() as u64, p))
}

fn random(seed: u64, tag: u64, p: u64) -> u64 {
    2 + mix(seed, tag) % (p - 2)
}

/// Returns a hash of two words (the finalizer of SplitMix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(b)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns the FNV-1a hash, which is the same on every machine.
pub(crate) fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn rational(value: &RBig, p: u64) -> Option<u64> {
    let num = residue(value.numerator(), p);
    let den = u64::try_from(value.denominator() % UBig::from(p)).ok()?;
    if den == 1 {
        return Some(num);
    }
    Some(mul(num, inverse(den, p)?, p))
}

fn residue(value: &IBig, p: u64) -> u64 {
    if let Ok(small) = i64::try_from(value) {
        return i128::from(small).rem_euclid(i128::from(p)) as u64;
    }
    let (sign, magnitude) = value.clone().into_parts();
    let r = u64::try_from(magnitude % UBig::from(p)).unwrap_or(0);
    if sign == dashu_base::Sign::Negative && r != 0 {
        p - r
    } else {
        r
    }
}

fn add(a: u64, b: u64, p: u64) -> u64 {
    // p < 2^62, so the sum fits.
    let sum = a + b;
    if sum >= p { sum - p } else { sum }
}

fn mul(a: u64, b: u64, p: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(p)) as u64
}

fn power_u64(mut base: u64, mut n: u64, p: u64) -> u64 {
    let mut out = 1;
    while n > 0 {
        if n & 1 == 1 {
            out = mul(out, base, p);
        }
        base = mul(base, base, p);
        n >>= 1;
    }
    out
}

fn inverse(a: u64, p: u64) -> Option<u64> {
    if a == 0 {
        return None;
    }
    // The extended Euclidean algorithm, which is faster than Fermat's theorem.
    let (mut r0, mut r1, mut t0, mut t1) = (i128::from(p), i128::from(a), 0i128, 1i128);
    while r1 != 0 {
        let q = r0 / r1;
        (r0, r1) = (r1, r0 - q * r1);
        (t0, t1) = (t1, t0 - q * t1);
    }
    Some(t0.rem_euclid(i128::from(p)) as u64)
}

/// Returns `base^n` for an integer of any size, by Fermat's little theorem.
fn power(base: u64, n: &IBig, p: u64) -> Option<u64> {
    if base == 0 {
        return (*n > IBig::ZERO).then_some(0);
    }
    if let Ok(n) = i64::try_from(n) {
        let value = power_u64(base, n.unsigned_abs(), p);
        return if n < 0 {
            inverse(value, p)
        } else {
            Some(value)
        };
    }
    Some(power_u64(base, residue(n, p - 1), p))
}

/// Returns two primes between 2^60 and 2^61, drawn from `seed`.
pub(crate) fn draw_primes(seed: u64) -> [u64; 2] {
    let mut found = [0; 2];
    let mut count = 0;
    let mut draw = 0;
    while count < 2 {
        let candidate = (mix(seed, draw) >> 4) | (1 << 60) | 1;
        draw += 1;
        if is_prime(candidate) && found[0] != candidate {
            found[count] = candidate;
            count += 1;
        }
    }
    found
}

/// The Miller-Rabin test, which is deterministic below 2^64 with these bases.
fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if BASES.iter().any(|&b| n.is_multiple_of(b)) {
        return BASES.contains(&n);
    }
    let shift = (n - 1).trailing_zeros();
    let odd = (n - 1) >> shift;
    BASES.iter().all(|&base| {
        let mut x = power_u64(base, odd, n);
        if x == 1 || x == n - 1 {
            return true;
        }
        (1..shift).any(|_| {
            x = mul(x, x, n);
            x == n - 1
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_and_powers_agree_with_fermat() {
        let p = draw_primes(7)[0];
        for a in [1, 2, 3, 1_234_567, p - 1] {
            assert_eq!(mul(a, inverse(a, p).unwrap(), p), 1);
            assert_eq!(power_u64(a, p - 1, p), 1);
            assert_eq!(power(a, &IBig::from(-3), p), inverse(power_u64(a, 3, p), p));
        }
        assert_eq!(inverse(0, p), None);
        // 2^(10^40) = 2^(10^40 mod p - 1)
        let huge = IBig::from(10).pow(40);
        assert_eq!(
            power(2, &huge, p),
            Some(power_u64(2, residue(&huge, p - 1), p))
        );
    }

    #[test]
    fn primes_are_prime_and_large() {
        assert!(is_prime(2_305_843_009_213_693_951) && is_prime(1_000_000_007));
        assert!(!is_prime(3_215_031_751) && !is_prime(2_305_843_009_213_693_953));
        let [p, q] = draw_primes(1);
        assert!(p != q && p > 1 << 60 && q < 1 << 61);
    }
}
