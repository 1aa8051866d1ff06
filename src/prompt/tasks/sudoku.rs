//! 4x4 Sudoku puzzles.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check};
use crate::Result;
use crate::prompt::Problem;
use crate::random::shuffle;

/// The cells; 0 is an empty one.
type Board = [[u8; 4]; 4];

/// Generates 4x4 Sudoku puzzles with exactly one solution.
///
/// The answer is the solved board, one line per row, with spaces between the cells. Metadata:
/// `puzzle` and `solution`, lists of rows in which 0 is an empty cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MiniSudoku {
    /// The number of empty cells, within 1..=12; with 13, no puzzle has exactly one solution.
    /// Default: `8..=12`.
    pub empty: RangeInclusive<u64>,
}

impl Default for MiniSudoku {
    fn default() -> Self {
        Self { empty: 8..=12 }
    }
}

impl Generator for MiniSudoku {
    fn validate(&self) -> Result<()> {
        check("empty", &self.empty, 1..=12)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let mut digits = [1, 2, 3, 4];
        let mut cells: Vec<(usize, usize)> = (0..16).map(|at| (at / 4, at % 4)).collect();
        shuffle(rng, &mut digits);
        shuffle(rng, &mut cells);
        // Two random rows, completed by the first solution in the order of `digits`.
        let mut solution = Board::default();
        let mut row = [1, 2, 3, 4];
        shuffle(rng, &mut row);
        solution[0] = row;
        let mut order = digits;
        shuffle(rng, &mut order);
        solution[1] = order;
        if !is_consistent(&solution) || solutions(&mut solution, &digits, 1, true) == 0 {
            return None;
        }
        let wanted = between(rng, &self.empty);
        let (mut puzzle, mut empty) = (solution, 0);
        for (row, column) in cells {
            if empty == wanted {
                break;
            }
            let digit = std::mem::take(&mut puzzle[row][column]);
            match solutions(&mut puzzle.clone(), &digits, 2, false) {
                1 => empty += 1,
                _ => puzzle[row][column] = digit,
            }
        }
        if empty < wanted {
            return None;
        }
        let prompt = format!(
            "Fill in the empty cells of this 4x4 Sudoku, written as _, so that each row, each column and each of the four \
             2x2 blocks has the digits 1 to 4 once:\n{}\nAnswer with the full board in the same form: four lines, the \
             digits with spaces between them.",
            written(&puzzle)
        );
        let rows = |board: &Board| board.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        Some(
            Problem::new(prompt, written(&solution))
                .with_metadata("puzzle", rows(&puzzle))
                .with_metadata("solution", rows(&solution)),
        )
    }
}

fn written(board: &Board) -> String {
    let cell = |digit: &u8| match digit {
        0 => "_".to_string(),
        digit => digit.to_string(),
    };
    let row = |row: &[u8; 4]| row.iter().map(cell).collect::<Vec<_>>().join(" ");
    board.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Returns true if `digit` is in no other cell of the row, the column and the block of a cell.
fn fits(board: &Board, row: usize, column: usize, digit: u8) -> bool {
    (0..16).map(|at| (at / 4, at % 4)).all(|(r, c)| {
        let same_block = r / 2 == row / 2 && c / 2 == column / 2;
        let sees = (r == row || c == column || same_block) && (r, c) != (row, column);
        !sees || board[r][c] != digit
    })
}

/// Returns true if no digit is repeated in a row, a column or a block.
fn is_consistent(board: &Board) -> bool {
    (0..16)
        .map(|at| (at / 4, at % 4))
        .all(|(r, c)| board[r][c] == 0 || fits(board, r, c, board[r][c]))
}

/// The number of solutions, up to `limit`. With `keep`, the last one that was found is left on the
/// board.
fn solutions(board: &mut Board, digits: &[u8; 4], limit: usize, keep: bool) -> usize {
    let empty = (0..16)
        .map(|at| (at / 4, at % 4))
        .find(|&(r, c)| board[r][c] == 0);
    let Some((row, column)) = empty else {
        return 1;
    };
    let mut found = 0;
    for &digit in digits {
        if !fits(board, row, column, digit) {
            continue;
        }
        board[row][column] = digit;
        found += solutions(board, digits, limit - found, keep);
        if found >= limit {
            if !keep {
                board[row][column] = 0;
            }
            return found;
        }
        board[row][column] = 0;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    #[test]
    fn every_puzzle_has_one_solution_and_the_requested_number_of_empty_cells() {
        for (seed, empty) in (0..60).zip([1, 4, 8, 11, 12].into_iter().cycle()) {
            let task = MiniSudoku {
                empty: empty..=empty,
            };
            let mut rng = generator(&[seed]);
            let problem = std::iter::repeat_with(|| task.draw(&mut rng))
                .take(10_000)
                .find_map(|problem| problem)
                .unwrap();
            let board = |key: &str| -> Board {
                serde_json::from_value(problem.metadata[key].clone()).unwrap()
            };
            let (mut puzzle, solution) = (board("puzzle"), board("solution"));
            let holes = puzzle.as_flattened().iter().filter(|&&d| d == 0).count();
            assert_eq!(holes as u64, empty);
            assert!(is_consistent(&solution) && !solution.as_flattened().contains(&0));
            assert_eq!(solutions(&mut puzzle.clone(), &[1, 2, 3, 4], 9, false), 1);
            assert_eq!(solutions(&mut puzzle, &[4, 2, 1, 3], 1, true), 1);
            assert_eq!(puzzle, solution);
        }
        // The empty board has 288 solutions.
        let mut board = Board::default();
        assert_eq!(solutions(&mut board, &[1, 2, 3, 4], 1000, false), 288);
        assert_eq!(board, Board::default());
    }
}
