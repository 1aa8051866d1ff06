//! Generators of reasoning tasks, similar to those of
//! [reasoning_gym](https://github.com/open-thought/reasoning-gym): any number of problems with
//! verifiable answers.
//!
//! A [`Task`] is one of the tasks below with its difficulty. It is created by name
//! ([`Task::named`]) or read from a configuration, and generates [`Problem`](super::Problem)s with
//! the metadata that scoring needs; `metadata["task"]` is its name. With the feature `math`,
//! `reward::TaskReward` scores the answers to all tasks, with partial credit.
//!
//! | task | answer |
//! |---|---|
//! | `chain_sum` | [the result of additions and subtractions](ChainSum) |
//! | `basic_arithmetic` | [the value of an expression](BasicArithmetic) |
//! | `simple_equations` | [the solution of a linear equation](SimpleEquations) |
//! | `countdown` | [an expression of given numbers with a given value](super::Countdown) |
//! | `base_conversion` | [the digits of a number in another base](BaseConversion) |
//! | `prime_factorization` | [the prime factors of a number](PrimeFactorization) |
//! | `fraction_simplification` | [a fraction in lowest terms](FractionSimplification) |
//! | `gcd`, `lcm` | [the greatest common divisor](Gcd), [the least common multiple](Lcm) |
//! | `number_sorting`, `word_sorting` | [numbers](NumberSorting) or [words](WordSorting) in order |
//! | `letter_counting` | [the number of occurrences of a letter](LetterCounting) |
//! | `spell_backward` | [a word spelled backward](SpellBackward) |
//! | `mini_sudoku` | [a solved 4x4 Sudoku](MiniSudoku) |
//! | `shortest_path` | [a shortest path through a grid](ShortestPath) |
//! | `propositional_logic` | [a formula that follows from premises](PropositionalLogic) |
//! | `knights_knaves` | [the characters who tell the truth, and those who lie](KnightsKnaves) |
//!
//! ```
//! use rlvr::prompt::tasks::{ChainSum, Task};
//!
//! let easy = Task::from(ChainSum {
//!     terms: 2..=3,
//!     digits: 1..=2,
//! });
//! let mut problems = easy.problems(100, 0)?;
//! for name in ["gcd", "mini_sudoku", "knights_knaves"] {
//!     problems.extend(Task::named(name)?.problems(50, 0)?);
//! }
//! assert_eq!(problems[0].metadata["task"], "chain_sum");
//!
//! let read: Task = serde_json::from_str(
//!     r#"{"task": "chain_sum", "terms": {"start": 2, "end": 3}}"#,
//! )
//! .unwrap();
//! assert_eq!(
//!     read,
//!     Task::from(ChainSum {
//!         terms: 2..=3,
//!         ..ChainSum::default()
//!     })
//! );
//! # Ok::<(), rlvr::Error>(())
//! ```

mod arithmetic;
mod draw;
mod knights;
mod letters;
pub(crate) mod logic;
mod number;
pub(crate) mod path;
mod sorting;
mod sudoku;
mod task;
mod words;

pub use arithmetic::{BasicArithmetic, ChainSum, SimpleEquations};
pub use knights::KnightsKnaves;
pub use letters::{LetterCounting, SpellBackward};
pub use logic::PropositionalLogic;
pub use number::{BaseConversion, FractionSimplification, Gcd, Lcm, PrimeFactorization};
pub use path::ShortestPath;
pub use sorting::{NumberSorting, WordSorting};
pub use sudoku::MiniSudoku;
use task::Generator;
pub use task::Task;
