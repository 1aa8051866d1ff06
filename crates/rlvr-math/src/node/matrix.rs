//! Matrices: sums, products, powers, transposes and determinants of small ones, entry by entry.

use super::arena::{Arena, Id, Node};
use super::budget::{Res, Stop};

/// The largest size of a matrix whose determinant or inverse is computed.
const MAX_DETERMINANT: usize = 6;

/// Returns the number of columns and the cells of a matrix node.
pub(crate) fn parts(arena: &Arena, id: Id) -> Option<(usize, Vec<Id>)> {
    match arena.node(id) {
        Node::Matrix(columns, cells) => Some((*columns as usize, cells.clone())),
        _ => None,
    }
}

fn build(arena: &mut Arena, columns: usize, cells: Vec<Id>) -> Res<Id> {
    arena.add_node(Node::Matrix(columns as u32, cells))
}

/// Returns the sum of matrices of the same shape. Any other term is an error.
pub(crate) fn add(arena: &mut Arena, terms: Vec<Id>) -> Res<Id> {
    let mut total: Option<(usize, Vec<Id>)> = None;
    for term in terms {
        let Some((columns, cells)) = parts(arena, term) else {
            return Err(Stop::Syntax("a matrix plus a number"));
        };
        total = Some(match total {
            None => (columns, cells),
            Some((c, mut sums)) if c == columns && sums.len() == cells.len() => {
                for (sum, cell) in sums.iter_mut().zip(cells) {
                    *sum = arena.sum(vec![*sum, cell])?;
                }
                (c, sums)
            }
            Some(_) => return Err(Stop::Syntax("matrices of different shapes added")),
        });
    }
    let (columns, cells) = total.ok_or(Stop::Syntax("an empty sum"))?;
    build(arena, columns, cells)
}

/// Returns the product of matrices, in the order written, and scalars.
pub(crate) fn multiply(arena: &mut Arena, factors: Vec<Id>) -> Res<Id> {
    let mut scalars = Vec::new();
    let mut total: Option<(usize, Vec<Id>)> = None;
    for factor in factors {
        let Some((columns, cells)) = parts(arena, factor) else {
            scalars.push(factor);
            continue;
        };
        total = Some(match total {
            None => (columns, cells),
            Some((inner, left)) => {
                let rows = left.len() / inner;
                if cells.len() / columns != inner {
                    return Err(Stop::Syntax("matrices of different shapes multiplied"));
                }
                arena.budget.spend((rows * inner * columns) as u64)?;
                let mut out = Vec::with_capacity(rows * columns);
                for row in 0..rows {
                    for column in 0..columns {
                        let mut terms = Vec::with_capacity(inner);
                        for k in 0..inner {
                            terms.push(arena.product(vec![
                                left[row * inner + k],
                                cells[k * columns + column],
                            ])?);
                        }
                        out.push(arena.sum(terms)?);
                    }
                }
                (columns, out)
            }
        });
    }
    let (columns, mut cells) = total.ok_or(Stop::Syntax("an empty product"))?;
    let scalar = arena.product(scalars)?;
    for cell in &mut cells {
        *cell = arena.product(vec![scalar, *cell])?;
    }
    build(arena, columns, cells)
}

/// Returns `M^T`, `M^n` for a small n, or `M^{-1}`.
pub(crate) fn power(arena: &mut Arena, base: Id, exponent: Id) -> Res<Id> {
    let (columns, cells) = parts(arena, base).ok_or(Stop::Syntax("not a matrix"))?;
    if let Node::Sym(name) = arena.node(exponent)
        && matches!(arena.name(*name), "T" | "\\top" | "t")
    {
        return transpose(arena, columns, &cells);
    }
    match arena.small_int(exponent) {
        Some(-1) => inverse(arena, columns, &cells),
        Some(n @ 1..=20) => multiply(arena, vec![base; n as usize]),
        _ => Err(Stop::Syntax("a power of a matrix")),
    }
}

fn transpose(arena: &mut Arena, columns: usize, cells: &[Id]) -> Res<Id> {
    let rows = cells.len() / columns;
    let turned = (0..columns)
        .flat_map(|c| (0..rows).map(move |r| cells[r * columns + c]))
        .collect();
    build(arena, rows, turned)
}

/// Returns the determinant by the Leibniz sum over columns, which needs no division and so works
/// for symbols.
pub(crate) fn determinant(arena: &mut Arena, matrix: Id) -> Res<Id> {
    let (n, cells) = parts(arena, matrix).ok_or(Stop::Syntax("not a matrix"))?;
    if cells.len() != n * n {
        return Err(Stop::Syntax("a determinant of a matrix that is not square"));
    }
    minor(arena, n, &cells)
}

/// Computes `det[S]`, the determinant of the first |S| rows and the columns S, for all 2^n subsets
/// S in the order of their size.
fn minor(arena: &mut Arena, n: usize, cells: &[Id]) -> Res<Id> {
    if n > MAX_DETERMINANT {
        return Err(Stop::Limit("size of a determinant"));
    }
    let mut table = vec![arena.int(1)?; 1 << n];
    for set in 1usize..1 << n {
        let row = set.count_ones() as usize - 1;
        let mut terms = Vec::new();
        for (place, column) in (0..n).filter(|c| set >> c & 1 == 1).enumerate() {
            let sign = arena.int(if (row + place).is_multiple_of(2) {
                1
            } else {
                -1
            })?;
            terms.push(arena.product(vec![
                sign,
                cells[row * n + column],
                table[set & !(1 << column)],
            ])?);
        }
        table[set] = arena.sum(terms)?;
    }
    Ok(table[(1 << n) - 1])
}

fn inverse(arena: &mut Arena, n: usize, cells: &[Id]) -> Res<Id> {
    if cells.len() != n * n || n > 4 {
        return Err(Stop::Syntax("an inverse of a matrix"));
    }
    let determinant = minor(arena, n, cells)?;
    let mut out = Vec::with_capacity(n * n);
    for row in 0..n {
        for column in 0..n {
            let rest: Vec<Id> = (0..n * n)
                .filter(|i| i / n != column && i % n != row)
                .map(|i| cells[i])
                .collect();
            let cofactor = minor(arena, n - 1, &rest)?;
            let sign = arena.int(if (row + column).is_multiple_of(2) {
                1
            } else {
                -1
            })?;
            let value = arena.product(vec![sign, cofactor])?;
            out.push(arena.divide(value, determinant)?);
        }
    }
    build(arena, n, out)
}
