//! Shortest paths through a grid.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check};
use crate::prompt::Problem;
use crate::random::below;
use crate::{Error, Result};

/// The names of the four directions, with their steps in rows and columns.
pub(crate) const DIRECTIONS: [(&str, (isize, isize)); 4] = [
    ("right", (0, 1)),
    ("down", (1, 0)),
    ("left", (0, -1)),
    ("up", (-1, 0)),
];

/// Generates grids and asks for a shortest path from `*` to `#` through open cells `O`, past
/// blocked cells `X`.
///
/// The answer is one of the shortest paths, such as `right down down`, or `infeasible`. Metadata:
/// `matrix`, a list of rows of cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShortestPath {
    /// The number of rows, within 2..=100. Default: `5..=8`.
    pub rows: RangeInclusive<u64>,
    /// The number of columns, within 2..=100. Default: `5..=8`.
    pub columns: RangeInclusive<u64>,
    /// The probability that a cell is blocked, 0 to 1. Default: 0.4.
    pub blocked: f64,
    /// The probability that a problem has no path, 0 to 1. Default: 0.1.
    pub infeasible: f64,
}

impl Default for ShortestPath {
    fn default() -> Self {
        Self {
            rows: 5..=8,
            columns: 5..=8,
            blocked: 0.4,
            infeasible: 0.1,
        }
    }
}

/// The maximum number of draws of a grid with, or without, a path.
const GRIDS: usize = 20;

impl Generator for ShortestPath {
    fn validate(&self) -> Result<()> {
        check("rows", &self.rows, 2..=100)?;
        check("columns", &self.columns, 2..=100)?;
        for (field, share) in [("blocked", self.blocked), ("infeasible", self.infeasible)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::config(field, share, "0 to 1"));
            }
        }
        Ok(())
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let feasible = !happens(rng, self.infeasible);
        let (grid, path) = (0..GRIDS).find_map(|_| {
            let grid = self.grid(rng);
            let path = shortest_path(&grid);
            (path.is_some() == feasible).then_some((grid, path))
        })?;
        let rows: Vec<String> = grid.iter().map(|row| row.join(" ")).collect();
        let prompt = format!(
            "Find a shortest way from * to # in this grid. A step goes one cell right, down, left or up; O is an open cell, \
             X a blocked one.\n{}\nAnswer with the steps, as in: right right down. If there is no way, answer: infeasible",
            rows.join("\n")
        );
        let answer = path.map_or_else(|| "infeasible".to_string(), |path| path.join(" "));
        Some(Problem::new(prompt, answer).with_metadata("matrix", grid))
    }
}

impl ShortestPath {
    /// Draws a grid with a start and an end.
    fn grid(&self, rng: &mut impl Rng) -> Vec<Vec<&'static str>> {
        let (rows, columns) = (between(rng, &self.rows), between(rng, &self.columns));
        let mut cell = || if happens(rng, self.blocked) { "X" } else { "O" };
        let mut grid: Vec<Vec<&str>> = (0..rows)
            .map(|_| (0..columns).map(|_| cell()).collect())
            .collect();
        let cells = rows * columns;
        let start = below(rng, cells);
        let end = (start + 1 + below(rng, cells - 1)) % cells;
        let mut mark =
            |at: u64, mark| grid[(at / columns) as usize][(at % columns) as usize] = mark;
        mark(start, "*");
        mark(end, "#");
        grid
    }
}

/// Returns true with this probability.
fn happens(rng: &mut impl Rng, probability: f64) -> bool {
    const PARTS: u64 = 1 << 32;
    (below(rng, PARTS) as f64) < probability * PARTS as f64
}

/// The steps of a shortest path from `*` to `#` by breadth-first search; `None` if there is none.
fn shortest_path(grid: &[Vec<&str>]) -> Option<Vec<&'static str>> {
    let at = |row: usize, column: usize| grid.get(row).and_then(|row| row.get(column)).copied();
    let mut cells = (0..grid.len()).flat_map(|r| (0..grid[r].len()).map(move |c| (r, c)));
    let start = cells.find(|&(r, c)| grid[r][c] == "*")?;
    // The step that led to each cell that was reached.
    let mut steps = vec![vec![None; grid.first()?.len()]; grid.len()];
    let mut queue = VecDeque::from([start]);
    let mut end = None;
    while let Some((row, column)) = queue.pop_front() {
        if at(row, column) == Some("#") {
            end = Some((row, column));
            break;
        }
        for (direction, step) in DIRECTIONS {
            let next = (
                row.wrapping_add_signed(step.0),
                column.wrapping_add_signed(step.1),
            );
            let open = at(next.0, next.1).is_some_and(|cell| cell != "X");
            if open && next != start && steps[next.0][next.1].is_none() {
                steps[next.0][next.1] = Some((direction, step));
                queue.push_back(next);
            }
        }
    }
    let (mut row, mut column) = end?;
    let mut path = Vec::new();
    while let Some((direction, step)) = steps[row][column] {
        path.push(direction);
        row = row.wrapping_add_signed(-step.0);
        column = column.wrapping_add_signed(-step.1);
    }
    path.reverse();
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(rows: &[&str]) -> Option<String> {
        let grid: Vec<Vec<&str>> = rows.iter().map(|row| row.split(' ').collect()).collect();
        shortest_path(&grid).map(|path| path.join(" "))
    }

    #[test]
    fn paths_are_shortest_or_none() {
        assert_eq!(path(&["* #"]).as_deref(), Some("right"));
        assert_eq!(path(&["* X #"]), None);
        assert_eq!(
            path(&["* X #", "O X O", "O O O"]).as_deref(),
            Some("down down right right up up")
        );
        assert_eq!(
            path(&["O O O O", "* X X #", "O O O O"]).map(|path| path.split(' ').count()),
            Some(5)
        );
    }
}
