//! Random points: values of the symbols of expressions.

use super::modular::mix;
use crate::node::arena::{Arena, Id, Node};
use crate::node::function::Func;
use dashu_int::IBig;
use dashu_ratio::RBig;
use std::collections::HashMap;

/// A source of random points.
pub(crate) struct Sampler {
    symbols: Vec<(Id, bool)>,
    seed: u64,
}

impl Sampler {
    /// Creates a sampler for the symbols of `roots`. Symbols inside of functions of integers get
    /// integer values.
    pub fn new(arena: &Arena, roots: &[Id], seed: u64) -> Self {
        let mut integers = Vec::new();
        for id in arena.reachable(roots) {
            match arena.node(id) {
                Node::Fn(
                    Func::Factorial
                    | Func::DoubleFactorial
                    | Func::Binom
                    | Func::Gcd
                    | Func::Lcm
                    | Func::Mod,
                    _,
                ) => {
                    integers.extend(arena.symbols(&[id]));
                }
                Node::Pow(base, exponent)
                    if arena.exact(*base).is_some_and(|v| *v < RBig::ZERO) =>
                {
                    integers.extend(arena.symbols(&[*exponent]));
                }
                _ => {}
            }
        }
        let symbols = arena
            .symbols(roots)
            .into_iter()
            .map(|id| (id, integers.contains(&id)))
            .collect();
        Self { symbols, seed }
    }

    pub fn is_constant(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Returns the point number `draw`. The values of points 0 and 1 are positive, those of 2 and 3
    /// negative, those of later ones have independent signs.
    pub fn draw(&self, draw: u64) -> HashMap<Id, RBig> {
        let mut point = HashMap::with_capacity(self.symbols.len());
        for (place, &(id, integer)) in self.symbols.iter().enumerate() {
            let word = mix(mix(self.seed, draw), place as u64);
            let value = if integer {
                RBig::from(1 + (word >> 8) % 24)
            } else {
                // Numerators of 20 bits over a power of two: (0, 1), (0, 4) or (0, 16).
                let scale = [1u64 << 20, 1 << 18, 1 << 16][((word >> 2) % 3) as usize];
                let magnitude =
                    RBig::from_parts(IBig::from(((word >> 8) % (1 << 20)) | 1), scale.into());
                let negative = match draw {
                    0 | 1 => false,
                    2 | 3 => true,
                    _ => word & 1 == 1,
                };
                if negative { -magnitude } else { magnitude }
            };
            point.insert(id, value);
        }
        point
    }

    /// Describes a point by the values of its symbols.
    pub fn describe(&self, arena: &Arena, point: &HashMap<Id, RBig>) -> String {
        let parts: Vec<String> = self
            .symbols
            .iter()
            .take(4)
            .filter_map(|(id, _)| match arena.node(*id) {
                Node::Sym(name) => {
                    let value = point.get(id)?.to_f64().value();
                    Some(format!("{} = {value:.4}", arena.name(*name)))
                }
                _ => None,
            })
            .collect();
        parts.join(", ")
    }
}
